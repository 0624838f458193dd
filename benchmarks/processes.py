"""Children that never outlive their parent."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import time
import traceback
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_CPUCLOCK_SCHED = 2


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the process `parent`, which started it, ends in any way."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def fork(serve: Callable[[], None]) -> int:
    """Run `serve` in a forked child and return the child's pid; end it with `end`."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent(parent)
        gc.disable()
        serve()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def end(pid: int) -> None:
    """Kill a child made by `fork` and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, by its own clock, which counts nanoseconds, and not the 10 ms of ticks."""
    # The clock's id, as clock_getcpuclockid(3) makes it on Linux.
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1e9
