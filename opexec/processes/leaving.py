"""The interpreter's exit, when the workers are killed: no thread is to see that as a death, and tell of it while the process ends.

Daemon threads go on until the interpreter stops them. One that waits for an answer would raise, or end a Future whose callbacks print.
"""

from __future__ import annotations

import threading
import time

#: Whether the interpreter has begun to exit, and has come to end the workers.
under_way = False


def begin() -> None:
    """From now on `hold` holds."""
    global under_way
    under_way = True


def hold() -> None:
    """To be called before telling of a worker's end: at the exit a daemon thread sleeps here until the process is gone."""
    if under_way and threading.current_thread().daemon:
        while True:
            time.sleep(3600)
