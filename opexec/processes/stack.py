"""Where a worker stands that hangs: it is asked by a signal (`workers.stack`), and its faulthandler answers on standard error."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from .. import workers
from ..workers.stack import SIGNAL
from .logs import WorkerLogs

#: How long a worker has to answer, in seconds: it does so at once, if it can.
_ANSWER_S = 0.5
_LOOK_AGAIN_S = 0.005

#: Frames that an error shows.
_FRAMES = 40

#: With this the stack of a worker's main thread ends, which is the last to be told.
_OUTERMOST = f'  File "{Path(workers.__file__).with_name("__main__.py")}"'
_IN_OUTERMOST = " in <module>"


def ask(pid: int, logs: WorkerLogs) -> tuple[str, ...]:
    """The stack of a worker's main thread, a line for each frame, the innermost first; empty where it does not tell."""
    if not _listens(pid):
        return ()
    with logs.stack() as lines:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, SIGNAL)
        end = time.monotonic() + _ANSWER_S
        while not _is_whole(lines) and time.monotonic() < end:
            time.sleep(_LOOK_AGAIN_S)
            logs.drain(_LOOK_AGAIN_S)
        return _main_thread(lines)


def _listens(pid: int) -> bool:
    """Whether a process catches the signal, and runs. One that is stopped could not answer."""
    with contextlib.suppress(OSError, ValueError):
        told = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        caught = int(told["SigCgt"], 16) >> (SIGNAL - 1) & 1
        return bool(caught) and told["State"][0] not in "TtZX"
    return False


def _is_whole(lines: list[str]) -> bool:
    return bool(lines) and lines[-1].startswith(_OUTERMOST) and lines[-1].endswith(_IN_OUTERMOST)


def _main_thread(lines: list[str]) -> tuple[str, ...]:
    frames: list[str] = []
    for line in lines:
        if line.startswith("  "):
            frames.append(line.strip())
        elif line:  # another thread's begin
            frames.clear()
    return tuple(frames[:_FRAMES])
