"""A model's input arena: blocks that calls are packed into, and arrays that the user fills in place.

It belongs to the model, not to a worker: every worker of the model maps it, so an array made here stays good when the worker is replaced.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .ipc import wire
from .ipc.arena import Arena, Extent, NoRoom
from .ipc.lease import Leases
from .ipc.packer import Packer
from .ipc.segment import Segment
from .memory import SharedMemory

_FIRST_SEGMENT = 1 << 20
_LARGEST_GROWTH = 256 << 20
#: Arrays from this many bytes on are looked up by address, whatever they are based on; smaller ones cost less to copy.
_LOOK_UP_BYTES = 1 << 14

_addressof = ctypes.addressof
_byte_at = ctypes.c_char.from_buffer


class _Own(NamedTuple):
    """An array made by `empty`, as it was made."""

    array: weakref.ref[np.ndarray[Any, Any]]
    dtype: np.dtype[Any]
    place: int


class InputMemory:
    """One model's. `packer` puts the inputs of calls into it; `examine` is the packer's."""

    def __init__(
        self,
        memory: SharedMemory,
        examine: Callable[[tuple[str, ...], list[np.ndarray[Any, Any]]], dict[str, int]],
    ) -> None:
        # Weakly: what nobody holds any more goes at once, and not when cycles are collected.
        own = weakref.proxy(self)
        self._memory = memory
        self._arena = Arena(lambda size: own._grow(size))
        self.packer = Packer(self._arena, examine)
        self._segments: dict[int, Segment] = {}  # by the address of their mapping
        self._lent = Leases()  # arrays made by `empty`
        self._lent_extents: dict[int, Extent] = {}
        #: The same by identity, which is quicker to tell than an address.
        self._own_arrays: dict[int, _Own] = {}
        self._lending = threading.RLock()
        #: Whether `empty` was ever asked: if not, no array can lie here.
        self.lends = False

    def open(self) -> None:
        """Create the first segment and map all its pages. Raises NoRoom."""
        first = self._add_segment(_FIRST_SEGMENT, 0)
        first.populate()
        self._arena.add(first)

    @property
    def held(self) -> int:
        """How many arrays made by `empty` are still looked at."""
        return len(self._lent)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """An array in shared memory, uninitialised, C-contiguous, aligned to 64 bytes. Raises NoRoom."""
        size = dtype.itemsize
        for dim in shape:
            size *= dim
        with self._lending:
            self.lends = True
            self.reclaim()
            extent = self._allocate(size)
            array = np.ndarray(shape, dtype, extent.segment.map, extent.offset)  # type: ignore[call-overload]
            self._lent_extents[extent.place] = extent
            self._lent.lend(extent.place, [array])
            self._own_arrays[id(array)] = _Own(weakref.ref(array), array.dtype, extent.place)
            return array  # type: ignore[no-any-return]

    def reclaim(self) -> None:
        """Take back the memory of arrays from `empty` over which nothing looks any more."""
        with self._lending:
            for place in self._lent.collect():
                self._arena.free(self._lent_extents.pop(place))
            for key in [key for key, own in self._own_arrays.items() if own.array() is None]:
                del self._own_arrays[key]

    def find(self, arrays: list[Any], aligned: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The indices of the arrays that lie in this memory as they are to be sent, and their places.

        `aligned`: to a platform that copies what does not begin on 64 bytes, so that it is to be copied here, where it is counted.
        """
        outside, places = [], []
        for index, array in enumerate(arrays):
            base = array.base
            if base is None:
                continue
            own = self._own_arrays.get(id(array))
            if (
                own is not None
                and array.dtype is own.dtype  # both of these can be set in place
                and array.flags.c_contiguous
                and own.array() is array
            ):
                place: int | None = own.place
            else:
                place = self._place_of(array, base, aligned)
            if place is not None:
                outside.append(index)
                places.append(place)
        return tuple(outside), tuple(places)

    def close(self) -> None:
        """Let go of the segments; arrays over them stay good."""
        self.packer.close()
        for segment in self._arena.segments.values():
            self._memory.forget(segment)

    def _place_of(self, array: np.ndarray[Any, Any], base: object, aligned: bool) -> int | None:
        """Where in this memory an array lies; None if it does not, or has to be copied all the same."""
        size = array.nbytes
        if not size or (size < _LOOK_UP_BYTES and type(getattr(base, "base", base)) is not mmap.mmap):
            return None
        dtype = array.dtype
        if not array.flags.c_contiguous or not dtype.isnative or dtype.hasobject:
            return None
        address = _address(array)
        if aligned and address % wire.ALIGNMENT:
            return None
        for start, segment in self._segments.items():  # a dict that is replaced, never changed
            if start <= address and address + size <= start + segment.size:
                return segment.id << wire.PLACE_BITS | (address - start)
        return None

    def _allocate(self, size: int) -> Extent:
        try:
            return self._arena.allocate(size)
        except NoRoom:
            self.packer.trim()
            return self._arena.allocate(size)

    def _grow(self, size: int) -> Segment:
        return self._add_segment(size, min(self._arena.size, _LARGEST_GROWTH))

    def _add_segment(self, size: int, room_to_grow: int) -> Segment:
        segment = self._memory.create(size, room_to_grow=room_to_grow)
        self._segments = {**self._segments, _address(np.frombuffer(segment.map, np.uint8)): segment}
        return segment


def _address(array: np.ndarray[Any, Any]) -> int:
    """Where a C-contiguous array begins in memory."""
    try:
        # A third of the cost of __array_interface__.
        return _addressof(_byte_at(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # read-only; of a dtype that no buffer may have, as dates and bfloat16
        return int(array.__array_interface__["data"][0])
