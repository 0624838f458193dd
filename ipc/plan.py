"""A plan: how all tensors of one signature lie in one block.

Made once for a signature (names, dtypes, shapes) by the side that sends, told to the other side in a control message, and afterwards
named by its id alone. What can be checked once is checked when a plan is received; a record then needs only its places checked.
"""

from __future__ import annotations

import struct
from operator import attrgetter

import numpy as np

from .faults import ProtocolError
from .wire import (
    ALIGNMENT,
    BYTES,
    MAX_RANK,
    PLACES_IN_RECORD,
    STRING,
    build_dtype,
    decode_texts,
    describe_dtype,
    encode_texts,
    is_text,
)

_ndarray = np.ndarray
_shape = attrgetter("shape")
_dtype = attrgetter("dtype")

_OUTSIDE = -1  # offset of a tensor that lies elsewhere and travels as a place of its own
_LARGEST = 1 << 39

#: Copied in about the time that the other side takes to wake up.
_LAST_BYTES = 1 << 19


def _aligned(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def _elements(shape):
    count = 1
    for dim in shape:
        count *= dim
    return count


class Plan:
    """The layout of a message's tensors.

    `names`, `dtypes`, `shapes`, `sizes` (bytes) and `offsets` (into the block, or -1 for a tensor outside it) run in parallel; a text
    tensor has the dtype STRING or BYTES and its capacity as size. `note` is the sender's own plain data. `size` is the block's, in bytes.
    `packed` are the indices of the tensors inside the block, `outside` those of the others, whose places lie in the record, or in a
    table of 8-byte words at `table` inside the block where the record has no room for them.
    """

    __slots__ = (
        "id",
        "names",
        "dtypes",
        "shapes",
        "sizes",
        "offsets",
        "note",
        "size",
        "packed",
        "outside",
        "table",
        "texts",
        "copied",
        "whole",
        "memo",
        "_layout",
    )

    def __init__(self, id, names, dtypes, shapes, sizes, offsets, note, size, table):
        self.id = id
        self.names = names
        self.dtypes = dtypes
        self.shapes = shapes
        self.sizes = sizes
        self.offsets = offsets
        self.note = note
        self.size = size
        self.table = table
        self.packed = tuple(i for i, offset in enumerate(offsets) if offset != _OUTSIDE)
        self.outside = tuple(i for i, offset in enumerate(offsets) if offset == _OUTSIDE)
        self.texts = tuple(i for i, dtype in enumerate(dtypes) if isinstance(dtype, str))
        self.copied = sum(sizes[i] for i in self.packed)
        #: Every tensor is copied as it is into the block: the common case, done without looking at each.
        self.whole = not self.outside and not self.texts
        self._layout = tuple(zip(shapes, dtypes, offsets))
        #: For whoever receives by this plan: what it made for it, by place.
        self.memo = {}

    @classmethod
    def lay_out(cls, id, names, arrays, note, outside=(), capacities=None):
        """Plan a block for `arrays`; those whose index is in `outside` get no room in it.

        `capacities` gives the bytes to keep for a text tensor, by index. Raises TypeError or ValueError for a tensor that cannot be laid out.
        """
        dtypes, sizes, offsets = [], [], []
        end = 0
        for index, (name, array) in enumerate(zip(names, arrays)):
            if array.ndim > MAX_RANK:
                raise ValueError(
                    "tensor {!r} has {} dimensions; expected at most {}".format(name, array.ndim, MAX_RANK)
                )
            if is_text(array.dtype):
                dtypes.append(capacities[index][0])
                sizes.append(capacities[index][1])
            else:
                try:
                    dtypes.append(build_dtype(describe_dtype(array.dtype)))
                except TypeError as error:
                    raise TypeError("tensor {!r}: {}".format(name, error)) from None
                sizes.append(array.size * dtypes[-1].itemsize)
            if index in outside:
                offsets.append(_OUTSIDE)
            else:
                offsets.append(end)
                end += _aligned(sizes[-1])
        table = -1
        if len(outside) > PLACES_IN_RECORD:
            table = end
            end += _aligned(8 * len(outside))
        shapes = tuple(array.shape for array in arrays)
        return cls(
            id,
            tuple(names),
            tuple(dtypes),
            shapes,
            tuple(sizes),
            tuple(offsets),
            note,
            max(end, ALIGNMENT),
            table,
        )

    def to_message(self):
        """The control message that tells the other side this plan."""
        return {
            "type": "plan",
            "id": self.id,
            "tensors": [
                [name, dtype if isinstance(dtype, str) else describe_dtype(dtype), list(shape), size, offset]
                for name, dtype, shape, size, offset in zip(
                    self.names, self.dtypes, self.shapes, self.sizes, self.offsets
                )
            ],
            "note": self.note,
            "size": self.size,
            "table": self.table,
        }

    @classmethod
    def from_message(cls, message):
        """The plan in a control message, checked throughout. Raises ProtocolError naming the tensor and the field that is wrong."""
        try:
            size, table = _natural(message["size"], "size"), message["table"]
            names, dtypes, shapes, sizes, offsets = [], [], [], [], []
            seen = set()
            for name, description, shape, nbytes, offset in message["tensors"]:
                if not isinstance(name, str) or name in seen:
                    raise ProtocolError("plan: {!r} is no name, or that of two tensors".format(name))
                names.append(name)
                seen.add(name)
                shapes.append(_checked_shape(name, shape))
                dtypes.append(
                    description if description in (STRING, BYTES) else _checked_dtype(name, description)
                )
                sizes.append(_checked_size(name, dtypes[-1], shapes[-1], nbytes))
                offsets.append(_checked_offset(name, offset, nbytes, size))
                if offset == _OUTSIDE and isinstance(dtypes[-1], str):
                    raise ProtocolError("plan: text tensor {!r} lies outside the block".format(name))
            outside = offsets.count(_OUTSIDE)
            if outside > PLACES_IN_RECORD and table != _OUTSIDE:
                _checked_offset("the table of places", table, 8 * outside, size)
            elif outside > PLACES_IN_RECORD or table != -1:
                raise ProtocolError(
                    "plan: {} tensors outside, and a table of places at {}".format(outside, table)
                )
            return cls(
                _natural(message["id"], "id"),
                tuple(names),
                tuple(dtypes),
                tuple(shapes),
                tuple(sizes),
                tuple(offsets),
                message["note"],
                size,
                table,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError("a plan that cannot be read: {!r}".format(error)) from None

    def views(self, map, start):
        """Arrays over the block that begins `start` bytes into the mapping; None for a tensor outside, uint8 for a text.

        Each is made directly over the mapping, so that whatever is derived from it keeps *it* alive (numpy skips arrays in between).
        """
        if self.whole:
            return [_ndarray(shape, dtype, map, start + offset) for shape, dtype, offset in self._layout]
        return [
            None
            if offset == _OUTSIDE
            else np.ndarray(size, np.uint8, map, start + offset)
            if isinstance(dtype, str)
            else np.ndarray(shape, dtype, map, start + offset)
            for dtype, shape, size, offset in zip(self.dtypes, self.shapes, self.sizes, self.offsets)
        ]

    def spans(self, start):
        """Which bytes of a mapping the tensors of a block that begins at `start` take up, as slices. For plans that are `whole`."""
        return [
            slice(start + offset, start + offset + size) for offset, size in zip(self.offsets, self.sizes)
        ]

    def holds(self, capacities):
        """Whether texts that need these capacities (`text_capacities`) fit into the block."""
        return all(
            self.sizes[index] >= size and self.dtypes[index] == kind
            for index, (kind, size) in capacities.items()
        )

    def fill(self, views, arrays, encoded):
        """Copy `arrays` into the `views` of a block. `encoded` maps the index of a text tensor to what `encode_texts` gave."""
        if self.whole:
            for view, array in zip(views, arrays):
                view[...] = array
            return
        for index in self.packed:
            if index in encoded:
                _, offsets, payload = encoded[index]
                head = offsets.nbytes
                views[index][:head] = offsets.view(np.uint8)
                views[index][head : head + len(payload)] = np.frombuffer(payload, np.uint8)
            else:
                views[index][...] = arrays[index]

    def fill_and_rouse(self, views, arrays, rouse):
        """`fill`, calling `rouse` when about `_LAST_BYTES` are left to copy. For messages without texts."""
        largest = max(self.packed, key=self.sizes.__getitem__)
        if rouse is None or not arrays[largest].flags.c_contiguous:
            self.fill(views, arrays, {})
            return
        for index in self.packed:
            if index != largest:
                views[index][...] = arrays[index]
        view, array = views[largest].reshape(-1), arrays[largest].reshape(-1)
        split = max(0, view.size - _LAST_BYTES // view.itemsize)
        view[:split] = array[:split]
        rouse()
        view[split:] = array[split:]

    def intact(self, views):
        """Whether `views`, made by this plan, are still as they were made: nobody set a shape, a dtype or a flag."""
        for view, (shape, dtype, _) in zip(views, self._layout):
            if view.shape != shape or view.dtype is not dtype or not view.flags.writeable:
                return False
        return True

    def write_table(self, map, start, places):
        """Write the places of the tensors outside into the block's own table."""
        struct.pack_into("={}Q".format(len(places)), map, start + self.table, *places)

    def read_table(self, map, start):
        """The places of the tensors outside, from the block's own table."""
        return struct.unpack_from("={}Q".format(len(self.outside)), map, start + self.table)

    def decode(self, index, view):
        """The object array of the text tensor `index` that lies in `view`."""
        return decode_texts(self.dtypes[index], self.shapes[index], _elements(self.shapes[index]), view)


def text_capacities(arrays):
    """Encode the text tensors among `arrays`: returns ``(encoded, capacities)``, both by index.

    A capacity is a power of two, so that texts of changing lengths soon share one plan.
    """
    encoded, capacities = {}, {}
    for index, array in enumerate(arrays):
        if is_text(array.dtype):
            kind, offsets, payload = encoded[index] = encode_texts(array)
            needed = offsets.nbytes + len(payload)
            capacities[index] = (kind, max(ALIGNMENT, 1 << (needed - 1).bit_length()))
    return encoded, capacities


def _natural(value, what):
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise ProtocolError("plan: {} is {!r}; expected an integer from 0 to 2**39 - 1".format(what, value))
    return value


def _checked_shape(name, shape):
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        raise ProtocolError(
            "plan: the shape of tensor {!r} is {!r}; expected at most {} dimensions".format(
                name, shape, MAX_RANK
            )
        )
    return tuple(_natural(dim, "a dimension of tensor {!r}".format(name)) for dim in shape)


def _checked_dtype(name, description):
    dtype = build_dtype(description)
    if dtype.subdtype is not None:
        raise ProtocolError("plan: the dtype of tensor {!r} has a shape of its own".format(name))
    return dtype


def _checked_size(name, dtype, shape, nbytes):
    _natural(nbytes, "the size of tensor {!r}".format(name))
    count = _elements(shape)
    # numpy multiplies the dimensions of an empty array too, leaving out the zeros.
    if _elements(max(dim, 1) for dim in shape) * (8 if isinstance(dtype, str) else dtype.itemsize) >= 1 << 62:
        raise ProtocolError("plan: tensor {!r} of shape {} is larger than any memory".format(name, shape))
    if isinstance(dtype, str):
        if nbytes < 8 * (count + 1):
            raise ProtocolError(
                "plan: text tensor {!r} has {} bytes for {} elements".format(name, nbytes, count)
            )
    elif nbytes != count * dtype.itemsize:
        raise ProtocolError(
            "plan: tensor {!r} has {} bytes; {} {} make {}".format(
                name, nbytes, shape, dtype, count * dtype.itemsize
            )
        )
    return nbytes


def _checked_offset(name, offset, nbytes, size):
    if offset == _OUTSIDE:
        return offset
    if _natural(offset, "the offset of {!r}".format(name)) % ALIGNMENT or offset + nbytes > size:
        raise ProtocolError(
            "plan: {!r} lies at byte {} and is {} long; the block has {} bytes and tensors begin on {}".format(
                name, offset, nbytes, size, ALIGNMENT
            )
        )
    return offset
