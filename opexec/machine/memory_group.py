"""A control group of version 2 for one worker, where this user may make one.

Processes and limits of children cannot be in one group (kernel documentation, "No Internal Process Constraint"), so the worker's group is
made beside the caller's, as a session of systemd's or a container with a tree of its own allows; in the caller's own where that is the root of
the tree. Beside it only if the caller's group has no memory limit of its own, from which the worker would escape.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from pathlib import Path

from . import control_groups

_PREFIX = "opexec-"
_numbers = itertools.count()

# What was killed leaves its group a moment after it has died.
_EMPTY_S = 0.5
_LOOK_AGAIN_S = 0.002


class MemoryGroup:
    """A group whose processes together have `limit` bytes; the kernel ends all of them if one goes beyond it.

    Raises OSError, or PermissionError with the reason, where it cannot be made.
    """

    def __init__(self, limit: int, caller: Path | None = None) -> None:
        parent = _parent(caller)
        _sweep(parent)
        self.folder = parent / f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        self.folder.mkdir()
        try:
            (self.folder / "memory.max").write_text(str(limit))
            (self.folder / "memory.oom.group").write_text("1")
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap accounting
                (self.folder / "memory.swap.max").write_text("0")
        except BaseException:
            self.remove()
            raise

    def joining(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` in the group, as the same process. A shell does so: the first page counts already."""
        return ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *argv]

    def remove(self) -> None:
        """Kill what is left in the group, and remove it."""
        with contextlib.suppress(OSError):  # before Linux 5.14 there is no such file
            (self.folder / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + _EMPTY_S
        while not _removed(self.folder) and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_S)


def _parent(caller: Path | None) -> Path:
    if caller is None:
        found = control_groups.own("memory")
        if found is None or found[1] != 2:
            raise PermissionError("the memory controller of control groups version 2 is not there")
        caller = found[0]
    if "memory" in _read(caller / "cgroup.subtree_control").split():
        parent = caller
    else:
        parent = caller.parent
        if "memory" not in _read(parent / "cgroup.subtree_control").split():
            raise PermissionError(f"{caller} has no group beside it that could have a memory limit")
        if any(_read(caller / name).strip() != "max" for name in ("memory.max", "memory.high")):
            raise PermissionError(f"{caller} has a memory limit, from which a group beside it would escape")
    for needed in (
        parent,
        parent / "cgroup.procs",
    ):  # the second, to move a process from one group to another
        if not os.access(needed, os.W_OK):
            raise PermissionError(f"this user may not write to {needed}")
    return parent


def _sweep(parent: Path) -> None:
    """Remove the groups of callers that were killed. One that still has processes stays."""
    for group in parent.glob(f"{_PREFIX}*"):
        match = re.fullmatch(rf"{_PREFIX}(\d+)-\d+", group.name)
        if match is not None and not os.path.exists(f"/proc/{match[1]}"):
            _removed(group)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
