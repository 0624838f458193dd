"""Models that hang, while they load or in a call, once they have said so at the gate. Python >= 3.7, standard library and numpy."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time


def hang_in_python():
    arrive()
    time.sleep(1000)


def hang_in_c():
    """Without giving the interpreter away."""
    libc = ctypes.PyDLL(None)
    arrive()
    libc.sleep(1000)


def hang_with_own_handler():
    signal.signal(signal.SIGURG, lambda number, frame: None)
    arrive()
    time.sleep(1000)


def hang_deep_down(depth=200):
    if depth:
        hang_deep_down(depth - 1)
    arrive()
    time.sleep(1000)


def arrive():
    print("last words", file=sys.stderr)
    with open(os.path.join(os.environ["OPEXEC_TEST_GATE"], "arrived"), "w") as arrived:
        arrived.write(".")


WAYS = {
    "python": hang_in_python,
    "c": hang_in_c,
    "own handler": hang_with_own_handler,
    "deep": hang_deep_down,
}


def loading():
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    WAYS[os.environ["OPEXEC_TEST_WAY"]]()


def calling():
    return lambda how: WAYS[str(how)]() if str(how) in WAYS else how
