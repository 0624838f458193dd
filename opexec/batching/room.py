"""The shared memory in which calls are joined: for each input an array with room for the rows of many calls, kept and used again."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import OutOfSharedMemory
from .seam import Tensors, at

#: A room has so many bytes at first, if that is enough for a call; one that was filled is followed by one of twice as many rows.
_FIRST_BYTES = 1 << 20
#: Of so many shapes rooms are kept; of the others the memory goes back.
_KEYS_KEPT = 16

Empty = Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray[Any, Any]]


class Room:
    """`arrays` for `capacity` rows, by the name of the input. Texts, which have no fixed size, are not among them."""

    def __init__(self, tensors: Tensors, axes: Mapping[str, int], capacity: int, empty: Empty) -> None:
        self.key = tensors.key
        self.capacity = capacity
        self._axes = axes
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        for name, (dtype, rest) in zip(tensors.names, tensors.key[1], strict=True):
            if dtype is not None:
                axis = axes[name]
                self.arrays[name] = empty((*rest[:axis], capacity, *rest[axis:]), dtype)

    def fill(self, tensors: Tensors, start: int) -> int:
        """Copy a call's rows to their place; returns how many bytes that were."""
        copied = 0
        for name, array in zip(tensors.names, tensors.arrays, strict=True):
            joint = self.arrays.get(name)
            if joint is not None:
                joint[at(self._axes[name], start, start + tensors.rows)] = array
                copied += array.nbytes
        return copied

    def move(self, start: int, rows: int, to: int) -> int:
        """Move rows towards the beginning; returns how many bytes that were."""
        copied = 0
        for name, joint in self.arrays.items():
            axis = self._axes[name]
            part = joint[at(axis, start, start + rows)]
            joint[at(axis, to, to + rows)] = part
            copied += part.nbytes
        return copied

    def part(self, name: str, start: int, stop: int) -> np.ndarray[Any, Any]:
        """The rows of one input, where they are."""
        joint = self.arrays[name]
        if not start and stop == self.capacity:
            return joint
        return joint[at(self._axes[name], start, stop)]  # type: ignore[no-any-return]


class Rooms:
    """The rooms that are not in use, and how large the next one is to be. Not thread-safe."""

    def __init__(self, axes: Mapping[str, int], max_rows: int, spare: int, empty: Empty) -> None:
        self._axes = axes
        self._max_rows = max_rows
        self._spare = spare
        self._empty = empty
        #: By key: how many rows the next one is to have, and those that are free. The last is the one used last.
        self._kept: OrderedDict[tuple[Any, ...], tuple[int, list[Room]]] = OrderedDict()

    def take(self, tensors: Tensors) -> Room:
        """A room for this call and others like it. Raises OutOfSharedMemory."""
        capacity, free = self._kept.pop(tensors.key, (0, []))
        capacity = max(capacity or self._first(tensors), tensors.rows)
        self._kept[tensors.key] = capacity, free
        if len(self._kept) > _KEYS_KEPT:
            self._kept.popitem(last=False)
        while free:
            room = free.pop()
            if room.capacity >= capacity:
                return room
        try:
            return Room(tensors, self._axes, capacity, self._empty)
        except OutOfSharedMemory:
            if capacity == tensors.rows:
                raise
            return Room(tensors, self._axes, tensors.rows, self._empty)

    def grow(self, room: Room) -> None:
        """This room was too small: the next one has more rows."""
        capacity, free = self._kept.get(room.key, (0, []))
        self._kept[room.key] = min(max(capacity, 2 * room.capacity), self._max_rows), free

    def give(self, room: Room) -> None:
        """Nobody writes or reads in it any more."""
        capacity, free = self._kept.get(room.key, (0, []))
        if capacity <= room.capacity and capacity and len(free) < self._spare:
            free.append(room)

    def clear(self) -> None:
        self._kept.clear()

    def _first(self, tensors: Tensors) -> int:
        row = sum(dtype.itemsize * math.prod(rest) for dtype, rest in tensors.key[1] if dtype is not None)
        return max(min(_FIRST_BYTES // max(row, 1), self._max_rows), 1)
