"""A model's input arena: blocks that calls are packed into, and arrays that the user fills in place.

It belongs to the model, not to a worker: every worker of the model maps it, so an array made here stays good when the worker is replaced.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..ipc import wire
from ..ipc.arena import Arena, Extent, NoRoom
from ..ipc.lease import Leases
from ..ipc.packer import Packer
from ..ipc.segment import Segment
from ..ipc.turns import blocks_in_turn
from ..memory import SharedMemory

_FIRST_SEGMENT = 1 << 20
_LARGEST_GROWTH = 256 << 20
#: Arrays from this many bytes on are looked up by address, whatever they are based on; smaller ones cost less to copy.
_LOOK_UP_BYTES = 1 << 14
#: Of more arrays than a record has room to place, those up to this many bytes are copied, wherever they lie: telling a place costs more.
_SMALL_AMONG_MANY = 1 << 12
_KNOWN_KEPT = 1024

_addressof = ctypes.addressof
_byte_at = ctypes.c_char.from_buffer


class _Known:
    """An array that was sent from this memory, from `empty` or a part of one, as it was then."""

    __slots__ = ("array", "dtype", "place")

    def __init__(self, array: np.ndarray[Any, Any], place: int) -> None:
        self.array: Callable[[], Any] = weakref.ref(array)
        self.dtype = array.dtype
        self.place = place

    def is_still(self, array: np.ndarray[Any, Any]) -> bool:
        """Whether `array` is that array, and nobody has set its dtype or strides in place."""
        return self.array() is array and array.dtype is self.dtype and array.flags.c_contiguous


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
        self._arena = Arena(lambda size, spare=False: own._grow(size, spare))
        self.packer = Packer(self._arena, examine, blocks_in_turn)
        self._segments: dict[int, Segment] = {}  # by the address of their mapping
        self._lent = Leases()  # arrays made by `empty`
        self._lent_extents: dict[int, Extent] = {}
        #: Arrays that were sent from here, by identity, which is quicker to tell than an address.
        self._known: dict[int, _Known] = {}
        #: What `find` found last where all arrays were such ones: these, its answer, and for which `aligned`.
        self._last_found: tuple[list[_Known], tuple[int, ...], tuple[int, ...], bool] = [], (), (), False
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
            return array  # type: ignore[no-any-return]

    def reclaim(self) -> None:
        """Take back the memory of arrays from `empty` over which nothing looks any more."""
        with self._lending:
            for place in self._lent.collect():
                self._arena.free(self._lent_extents.pop(place))

    def copies_all(self, count: int) -> bool:
        """Whether `count` arrays, like those that were packed last, are copied wherever they lie, so that none is to be looked for."""
        return count > wire.PLACES_IN_RECORD and self.packer.last_largest <= _SMALL_AMONG_MANY

    def find(self, arrays: list[Any], aligned: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The indices of the arrays that lie in this memory as they are to be sent, and their places.

        `aligned`: to a platform that copies what does not begin on 64 bytes, so that it is to be copied here, where it is counted.
        """
        return self.find_again(arrays, aligned) or self._search(arrays, aligned)

    def find_again(self, arrays: list[Any], aligned: bool) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """`find`, for the very arrays that were found last, all of them; None for anything else, arrays or not."""
        # Who fills the same arrays for each call sends them in the same order.
        last, outside, places, for_aligned = self._last_found
        if len(last) != len(arrays) or for_aligned is not aligned:
            return None
        for known, array in zip(last, arrays):
            # `is_still`, spelled out: there may be hundreds.
            if (
                array is None
                or known.array() is not array
                or array.dtype is not known.dtype
                or not array.flags.c_contiguous
            ):
                return None
        return outside, places

    def close(self) -> None:
        """Let go of the segments; arrays over them stay good."""
        self.packer.close()
        for segment in self._arena.segments.values():
            self._memory.forget(segment)

    def _search(self, arrays: list[Any], aligned: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        found: list[_Known] = []
        outside = []
        many = len(arrays) > wire.PLACES_IN_RECORD
        for index, array in enumerate(arrays):
            base = array.base
            if base is None or (many and array.nbytes <= _SMALL_AMONG_MANY):
                continue
            known = self._known.get(id(array))
            if known is None or not known.is_still(array):
                known = self._look_up(array, base)
                if known is None:
                    continue
            if aligned and known.place % wire.ALIGNMENT:
                continue
            outside.append(index)
            found.append(known)
        answer = tuple(outside), tuple([known.place for known in found])
        if len(found) == len(arrays):
            self._last_found = found, *answer, aligned
        return answer

    def _look_up(self, array: np.ndarray[Any, Any], base: object) -> _Known | None:
        place = self._place_of(array, base)
        if place is None:
            return None
        if len(self._known) >= _KNOWN_KEPT:
            self._forget_dropped()
        known = self._known[id(array)] = _Known(array, place)
        return known

    def _forget_dropped(self) -> None:
        for key in list(self._known):  # one step, unlike a list of items: other threads add to it
            known = self._known.get(key)
            if known is not None and known.array() is None:
                self._known.pop(key, None)
        if len(self._known) >= _KNOWN_KEPT:  # they would be gone through at every call
            self._known.clear()

    def _place_of(self, array: np.ndarray[Any, Any], base: object) -> int | None:
        """Where in this memory an array lies; None if it does not, or has to be copied all the same."""
        size = array.nbytes
        if not size or (size < _LOOK_UP_BYTES and type(getattr(base, "base", base)) is not mmap.mmap):
            return None
        dtype = array.dtype
        if not array.flags.c_contiguous or not dtype.isnative or dtype.hasobject:
            return None
        address = _address(array)
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

    def _grow(self, size: int, spare: bool) -> Segment:
        return self._add_segment(size, min(self._arena.size, _LARGEST_GROWTH), spare)

    def _add_segment(self, size: int, room_to_grow: int, spare: bool = False) -> Segment:
        segment = self._memory.create(size, room_to_grow=room_to_grow, spare=spare)
        self._segments = {**self._segments, _address(np.frombuffer(segment.map, np.uint8)): segment}
        return segment


def _address(array: np.ndarray[Any, Any]) -> int:
    """Where a C-contiguous array begins in memory."""
    try:
        # A third of the cost of __array_interface__.
        return _addressof(_byte_at(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # read-only; of a dtype that no buffer may have, as dates and bfloat16
        return int(array.__array_interface__["data"][0])
