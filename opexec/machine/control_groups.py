"""What the control groups above this process allow it: memory and processor time.

Both versions are read (kernel documentation, "Control Group v2" and "Memory Resource Controller"): version 2 has one tree, version 1 one
for each controller. A limit anywhere between the process's own group and the root holds, so the tightest counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")

#: Version 1 writes the largest multiple of a page for "no limit".
_UNLIMITED = 1 << 60


@dataclass(frozen=True)
class MemoryLimit:
    """Of one control group; in bytes."""

    allowed: int
    used: int

    @property
    def left(self) -> int:
        return self.allowed - self.used


def memory(membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> MemoryLimit | None:
    """The limit that leaves least, or None if there is none."""
    limits = []
    for group, version in _groups("memory", membership, mount):
        allowed, used = (
            ("memory.max", "memory.current")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        try:
            limit = MemoryLimit(int((group / allowed).read_text()), int((group / used).read_text()))
        except (OSError, ValueError):  # not this controller's, or "max"
            continue
        if limit.allowed < _UNLIMITED:
            limits.append(limit)
    return min(limits, key=lambda limit: limit.left, default=None)


def cores(membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> float | None:
    """How many cores' worth of time may be used (0.5 is half a core), or None if nothing limits it."""
    quotas = []
    for group, version in _groups("cpu", membership, mount):
        try:
            if version == 2:
                quota, period = map(int, (group / "cpu.max").read_text().split())
            else:
                quota, period = (
                    int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
                )
        except (OSError, ValueError):
            continue
        if quota > 0:  # version 1 has -1 for none
            quotas.append(quota / period)
    return min(quotas, default=None)


def own(controller: str, membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> tuple[Path, int] | None:
    """The folder of the group whose `controller` this process is under, and its version; None where there is none to be seen."""
    for group, version in _groups(controller, membership, mount):
        if group.is_dir() and (version == 1 or controller in _words(group / "cgroup.controllers")):
            return group, version
    return None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _groups(controller: str, membership: Path, mount: Path) -> Iterator[tuple[Path, int]]:
    """The folders of the groups above this process, its own first, with the version of each."""
    try:
        entries = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in entries:
        if controllers == "":
            version, roots = 2, [mount, mount / "unified"]  # the second where both versions are mounted
        elif controller in controllers.split(","):
            version, roots = 1, [mount / controller]
        else:
            continue
        for root in roots:
            # In a container the path may be that of the host's tree, of which only the root is seen.
            folder = root / path.lstrip("/")
            for group in (folder, *folder.parents):
                yield group, version
                if group == root:
                    break
