"""How dtypes, tensors and records are written down for the other side.

A dtype travels as plain data that any numpy from 1.16 on understands: numpy's own string (``"<f4"``, ``"<M8[ns]"``, ``"|S5"``), ``"@bfloat16"``
for a kind that numpy lacks and ml_dtypes has, ``"#string"`` and ``"#bytes"`` for arrays of Python texts and bytes objects, and a dict for a
structured dtype. Byte order is always the machine's: other orders are converted while copying.

Texts and bytes of varying length are laid out as ``count + 1`` unsigned 64-bit offsets followed by the UTF-8 (or raw) bytes they point into.
"""

from __future__ import annotations

import reprlib
import struct

import numpy as np

from .faults import ProtocolError

#: What a record in a ring slot begins with: kind, call id, plan id, place of the block, and four words whose meaning depends on the kind.
HEAD = struct.Struct("=8Q")

#: A call with tensors outside its block goes on with their places; what lies behind the last one means nothing.
PLACES_IN_RECORD = 8
OUTSIDE = struct.Struct("=64x8Q")

#: A release record: kind, then released places, 0 where there is none.
RELEASES = struct.Struct("=16Q")
RELEASES_IN_RECORD = 15

CALL = 1
RELEASE = 2
RESULT = 3
FAILURE = 4
LOOK = 5

#: In a call's word 5: its result is to say when each step of it happened.
TIMED = 1
#: Words 4, 6 and 7 of such a result, in nanoseconds of CLOCK_MONOTONIC: the model started; it ended; and, relative to these, how long before
#: the start the call was taken (low half) and how long after the end the answer was ready (high half), each `LONGEST_OFFSET` at most.
LONGEST_OFFSET = (1 << 32) - 1

#: A place is ``segment id << PLACE_BITS | offset``. Offsets are multiples of ALIGNMENT where a block begins, so bit 0 is free to say "present".
PLACE_BITS = 40
PLACE_MASK = (1 << PLACE_BITS) - 1
PRESENT = 1

#: Tensors begin on this many bytes: frameworks copy, or abort, below it.
ALIGNMENT = 64

#: numpy 1.x holds no more dimensions.
MAX_RANK = 32

#: Kinds that ml_dtypes adds to numpy -> bytes an element.
EXTENSIONS = {
    "bfloat16": 2,
    "float8_e3m4": 1,
    "float8_e4m3": 1,
    "float8_e4m3b11fnuz": 1,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float6_e2m3fn": 1,
    "float6_e3m2fn": 1,
    "float4_e2m1fn": 1,
    "int2": 1,
    "int4": 1,
    "uint2": 1,
    "uint4": 1,
}

STRING = "#string"
BYTES = "#bytes"

_MAX_DEPTH = 32

_BIT_PATTERN = "opexec."


def _ml_dtypes():
    try:
        import ml_dtypes
    except ImportError:
        return None
    return ml_dtypes


def extension_dtype(name):
    """The dtype of an extension kind: ml_dtypes' own where it is installed, else one field of that name that holds the bit pattern.

    Raises KeyError for a name not in EXTENSIONS.
    """
    EXTENSIONS[name]
    found = getattr(_ml_dtypes(), name, None)
    if found is not None:
        return np.dtype(found)
    return _bit_pattern(name)


def _bit_pattern(name):
    return np.dtype([(_BIT_PATTERN + name, "u{}".format(EXTENSIONS[name]))])


def extension_name(dtype):
    """``"bfloat16"`` and so on for an extension kind in either form, else None."""
    if dtype.names is not None:
        name = dtype.names[0][len(_BIT_PATTERN) :] if len(dtype.names) == 1 else None
        if name in EXTENSIONS and dtype == _bit_pattern(name):
            return name
        return None
    # numpy's own kinds have no name in the table; ml_dtypes' register under theirs.
    return dtype.name if dtype.name in EXTENSIONS and dtype.isbuiltin != 1 else None


def describe_dtype(dtype):
    """Plain data that stands for `dtype`. Raises TypeError for one that holds Python objects inside a structure."""
    extension = extension_name(dtype)
    if extension is not None:
        return "@" + extension
    if dtype.names is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        return {
            "names": list(dtype.names),
            "formats": [describe_dtype(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
        }
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [describe_dtype(base), list(shape)]
    if dtype.hasobject or dtype.kind not in "biufcmMSUV":
        raise TypeError("dtype {} cannot lie in shared memory: its elements are Python objects".format(dtype))
    native = dtype.newbyteorder("=")
    if np.dtype(native.str) != native:
        raise TypeError("dtype {} is not known to numpy on the other side".format(dtype))
    return native.str


def build_dtype(description, depth=0):
    """The native dtype for what `describe_dtype` wrote. Raises ProtocolError for anything else."""
    try:
        if depth > _MAX_DEPTH:
            raise ValueError("structures inside structures, more than {} deep".format(_MAX_DEPTH))
        if isinstance(description, str):
            if description.startswith("@"):
                return extension_dtype(description[1:])
            dtype = np.dtype(description)
            plain = dtype.names is None and dtype.str == description and dtype.itemsize >= 0
            if not plain or dtype.hasobject or not dtype.isnative:
                raise ValueError("not a plain dtype of this machine")
            if dtype.kind in "mM" and np.datetime_data(dtype)[1] < 1:
                raise ValueError("a time without a step")
            return dtype
        if isinstance(description, dict):
            dtype = np.dtype(
                {
                    "names": description["names"],
                    "formats": [build_dtype(one, depth + 1) for one in description["formats"]],
                    "offsets": description["offsets"],
                    "itemsize": description["itemsize"],
                }
            )
            if dtype.hasobject:
                raise ValueError("holds objects")
            return dtype
        base, shape = description
        return np.dtype((build_dtype(base, depth + 1), tuple(shape)))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ProtocolError(
            "a dtype that cannot be read: {} ({})".format(reprlib.repr(description), error)
        ) from None


def is_text(dtype):
    """Whether elements are Python texts or bytes of varying length, to be encoded instead of copied."""
    return dtype.kind in "OT"


def encode_texts(array):
    """Encode an array of str (or of bytes) objects.

    Returns ``(kind, offsets, payload)``: STRING or BYTES, a uint64 array of ``array.size + 1``, and the joined bytes. Raises TypeError naming
    the first element that is neither, or that differs in kind from the first one.
    """
    elements = array.ravel().tolist()
    kind = BYTES if elements and isinstance(elements[0], bytes) else STRING
    wanted = bytes if kind is BYTES else str
    for index, element in enumerate(elements):
        if not isinstance(element, wanted):
            raise TypeError(
                "element {} is of type {}, expected {}: an object array must hold only texts or only bytes".format(
                    index, type(element).__name__, wanted.__name__
                )
            )
    # surrogatepass: a Python text may hold lone surrogates, and what went in must come out.
    encoded = elements if kind is BYTES else [text.encode("utf-8", "surrogatepass") for text in elements]
    offsets = np.zeros(len(encoded) + 1, np.uint64)
    if encoded:
        np.cumsum([len(one) for one in encoded], out=offsets[1:])
    return kind, offsets, b"".join(encoded)


def decode_texts(kind, shape, count, memory):
    """The object array that `encode_texts` wrote into `memory` (a 1-d uint8 array). Raises ProtocolError if its offsets are not in order."""
    head = 8 * (count + 1)
    offsets = memory[:head].view(np.uint64).tolist()
    data = memory[head:].tobytes()
    if offsets[0] != 0 or offsets[-1] > len(data) or any(a > b for a, b in zip(offsets, offsets[1:])):
        raise ProtocolError(
            "text offsets are not in order or reach past the {} bytes they lie in".format(len(data))
        )
    pieces = [data[a:b] for a, b in zip(offsets, offsets[1:])]
    try:
        elements = pieces if kind == BYTES else [piece.decode("utf-8", "surrogatepass") for piece in pieces]
    except UnicodeDecodeError as error:
        raise ProtocolError("a text is not UTF-8: {}".format(error)) from None
    array = np.empty(count, object)
    array[:] = elements
    return array.reshape(shape)
