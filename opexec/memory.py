"""How much shared memory a model may have, and the segments it gets.

Before anything is reserved the size is compared with the model's own limit, with what the machine has available and with what the control
group still allows: reserving more than that does not fail, it wakes the kernel's out-of-memory killer.
"""

from __future__ import annotations

import re
import threading
import weakref
from itertools import count
from pathlib import Path

import psutil

from .ipc.arena import NoRoom
from .ipc.segment import PAGE, Segment

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

#: Left to everybody else when a segment is reserved, in bytes.
_RESERVE = 64 << 20


def parse_size(size: int | str) -> int:
    """Bytes from an integer or from text such as ``"512 MiB"``, ``"2G"``, ``"64kB"`` (units are powers of 1024). Raises ValueError."""
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", size.lower())
        if match is None:
            raise ValueError(f"a size is {size!r}; expected bytes, or text such as '512MiB' or '2G'")
        size = int(float(match[1]) * _UNITS[match[2]])
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise ValueError(f"a size is {size!r}; expected a positive number of bytes, or text such as '512MiB'")
    return size


class SharedMemory:
    """The segments of one model: creates them within its limit. Thread-safe."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._ids = count()
        self._segments: dict[int, Segment] = {}
        self._lock = threading.Lock()
        # Of a model that nobody closed. Not at the interpreter's exit: daemon threads may still create segments, and send them.
        weakref.finalize(self, _close, self._segments).atexit = False

    @property
    def used(self) -> int:
        """Bytes in all live segments."""
        return sum(segment.size for segment in list(self._segments.values()))

    def create(self, size: int, *, room_to_grow: int = 0, spare: bool = False) -> Segment:
        """A new segment of `size` bytes, or of up to `room_to_grow` where there is plenty. `spare`: only where there is plenty.

        Raises NoRoom, naming what limits it and what is left.
        """
        with self._lock:
            size = -(-size // PAGE) * PAGE
            room, limited_by = self._room()
            plenty = room // 4
            if size > (plenty if spare else room):
                raise NoRoom(
                    f"{text_of_size(size)} of shared memory are needed, and {limited_by} leaves {text_of_size(max(room, 0))}"
                )
            generous = max(size, min(room_to_grow, plenty) // PAGE * PAGE)
            id = next(self._ids)
            try:
                try:
                    segment = Segment.create(id, generous)
                except OSError:
                    segment = Segment.create(id, size)
            except OSError as error:
                raise NoRoom(
                    f"{text_of_size(size)} of shared memory are needed, and the system refuses them: {error.strerror or error}"
                ) from error
            self._segments[id] = segment
            return segment

    def forget(self, segment: Segment) -> None:
        """Count a segment no more; the memory itself goes when nothing maps it any longer."""
        with self._lock:
            self._segments.pop(segment.id, None)
            segment.close()

    def _room(self) -> tuple[int, str]:
        rooms = [(psutil.virtual_memory().available - _RESERVE, "the machine's available memory")]
        group = _control_group_room()
        if group is not None:
            rooms.append((group - _RESERVE, "the control group's memory limit"))
        if self.limit is not None:
            rooms.append(
                (
                    self.limit - self.used,
                    f"shm_limit={text_of_size(self.limit)}, {text_of_size(self.used)} of it in use,",
                )
            )
        return min(rooms)


def _close(segments: dict[int, Segment]) -> None:
    for segment in segments.values():
        segment.close()


def _control_group_room() -> int | None:
    """Bytes that the control groups above this process still allow, or None if they set no limit."""
    try:
        entries = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return None
    rooms = []
    for _, controllers, path in entries:
        if controllers == "":
            root, limit, usage = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = (
                Path("/sys/fs/cgroup/memory"),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            try:
                allowed = (group / limit).read_text().strip()
                if allowed != "max":
                    rooms.append(int(allowed) - int((group / usage).read_text()))
            except (OSError, ValueError):
                continue
    return min(rooms, default=None)


def text_of_size(size: int) -> str:
    """A size for people: ``"1.5 GiB"``."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} bytes"
