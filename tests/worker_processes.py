"""Which processes are workers, by what the system says."""

from __future__ import annotations

import contextlib
import os

import psutil


def workers(pid: int | None = None) -> list[psutil.Process]:
    """Those of this process, or of another, that live. Each has a group of its own, in which its keeper is too (`opexec.workers.keeper`)."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # it ended in this very moment
            if (
                child.status() != psutil.STATUS_ZOMBIE
                and "--control" in child.cmdline()
                and os.getpgid(child.pid) == child.pid
            ):
                found.append(child)
    return found
