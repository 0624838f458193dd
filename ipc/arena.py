"""Tensor blocks inside segments, all handed out and taken back by one owner.

The bookkeeping is private to the owner's process: nothing in shared memory says which bytes are in use, so nothing there can be broken
or left locked. The other side only ever sees places. When no segment has room the arena grows by a new one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left

from .wire import ALIGNMENT, PLACE_BITS


class NoRoom(Exception):
    """No memory for a new segment; the text names the limit and what is free."""


class Extent:
    """A piece of a segment that is in use: `segment`, `offset` and `size` in bytes. `place` is how records name it."""

    __slots__ = ("segment", "offset", "size", "place")

    def __init__(self, segment, offset, size):
        self.segment = segment
        self.offset = offset
        self.size = size
        self.place = segment.id << PLACE_BITS | offset


class _Room:
    """The free pieces of one segment: ``(offset, size)`` pairs, sorted, never touching each other.

    A change makes a new list and puts it in place in one step, so that Ctrl-C in the middle of it changes nothing.
    """

    def __init__(self, segment):
        self.segment = segment
        self.free = [(0, segment.size)]

    def take(self, size):
        """The offset of the first free piece that holds `size` bytes, now taken; None if there is none."""
        for index, (offset, free) in enumerate(self.free):
            if free >= size:
                rest = [(offset + size, free - size)] if free > size else []
                self.free = self.free[:index] + rest + self.free[index + 1 :]
                return offset
        return None

    def give(self, offset, size):
        """Make `size` bytes at `offset` free, in one piece with what is free beside them."""
        end = offset + size
        index = bisect_left(self.free, (offset, size))
        first, last = index, index
        if index < len(self.free) and self.free[index][0] == end:
            end += self.free[index][1]
            last += 1
        if index > 0 and sum(self.free[index - 1]) == offset:
            offset = self.free[index - 1][0]
            first -= 1
        self.free = self.free[:first] + [(offset, end - offset)] + self.free[last:]


class Arena:
    """Allocates extents from segments. Thread-safe.

    `grow(size)` gives a new segment of at least `size` bytes, or raises NoRoom; `grow(size, True)` raises it unless there is plenty.
    """

    def __init__(self, grow):
        self._grow = grow
        self._lock = threading.RLock()  # a garbage collection inside may end a lease, which frees
        self._rooms = {}
        #: How many segments there are.
        self.count = 0

    @property
    def segments(self):
        """The segments by id, oldest first."""
        return {id: room.segment for id, room in list(self._rooms.items())}

    @property
    def size(self):
        """Bytes in all segments."""
        return sum(room.segment.size for room in list(self._rooms.values()))

    @property
    def free_bytes(self):
        """Bytes not handed out."""
        return sum(size for room in list(self._rooms.values()) for _, size in room.free)

    def add(self, segment):
        """Take a segment in, all of it free."""
        with self._lock:
            self._rooms[segment.id] = _Room(segment)
            self.count = len(self._rooms)

    def allocate(self, size):
        """An extent of `size` bytes rounded up to ALIGNMENT. Raises NoRoom when the arena cannot grow."""
        with self._lock:
            extent = self.find(size)
            if extent is None:
                self.add(self._grow(_aligned(size)))
                extent = self.find(size)
            return extent

    def widen(self, size):
        """Grow by a segment of at least `size` bytes, if there is plenty. Raises NoRoom."""
        with self._lock:
            self.add(self._grow(_aligned(size), True))

    def find(self, size):
        """An extent of `size` bytes rounded up to ALIGNMENT from the segments there are, or None."""
        size = _aligned(size)
        with self._lock:
            for room in self._rooms.values():
                offset = room.take(size)
                if offset is not None:
                    return Extent(room.segment, offset, size)
        return None

    def free(self, extent):
        """Take an extent back. It must have come from `allocate` and be freed once."""
        with self._lock:
            self._rooms[extent.segment.id].give(extent.offset, extent.size)


def _aligned(size):
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
