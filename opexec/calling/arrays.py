"""What a caller may pass as a tensor: `to_numpy` turns any accepted input into a numpy array, over the same memory where there is an array already.

Arrays of a framework that the caller uses, and how outputs become such arrays, are the matter of `array_kinds`.
"""

from __future__ import annotations

import copy
import datetime
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import SpecError
from ..ipc import wire
from ..spec import TensorSpec
from ..workers.arrays import as_array
from . import array_kinds
from .array_kinds import kind_of as kind_of

_PYTHON_VALUES = (
    *(bool, int, float, complex, str, bytes, list, tuple),
    *(datetime.date, datetime.timedelta),
)

# DLPack's device types whose memory the host can read: kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged.
_HOST_DEVICES = {1, 3, 11, 13}


def to_numpy(value: object, spec: TensorSpec | None, name: str) -> np.ndarray[Any, Any]:
    """The numpy array for the input `name`.

    Without a copy: numpy arrays (an exact ndarray is returned as it is, a subclass as a plain view), torch tensors in host memory
    (detached; bfloat16 and the float8 kinds keep their bits), TensorFlow's eager tensors and jax's arrays there, memoryviews and other
    buffers, and mostly what has ``__array__`` or ``__dlpack__``. A numpy scalar becomes a 0-d array of its own dtype. cupy's arrays are
    copied from their GPU.

    Python's numbers, strings, bytes and dates, and nested lists or tuples of them, become an array of the dtype in `spec`. A float
    does not become an int, nor a str a number, and nothing wraps around or overflows to infinity.

    Raises SpecError for anything else, naming the input and saying what came and what to do. Whether the array fits `spec` is not
    checked here.
    """
    if type(value) is np.ndarray:
        return value
    if isinstance(value, _PYTHON_VALUES) and not isinstance(value, np.generic):
        return _from_python(value, spec, name)
    kind = array_kinds.of(value)
    if kind is None:
        _refuse_device_memory(value, name)
    try:
        array = None if kind is None else kind.to_numpy(value, name)
        if array is None:
            array = as_array(value)
        if array is None:
            array = _from_buffer(value)
    except TypeError as error:
        raise SpecError(f"input {name!r} is of type {_type_name(value)}: {error}") from error.__cause__
    if array is None:
        raise SpecError(
            f"input {name!r} is of type {_type_name(value)}, which is no array; expected a numpy array, a torch tensor, an object "
            "with __array__ or __dlpack__, or Python numbers, strings or (nested) lists of them"
        )
    return array


def _refuse_device_memory(value: object, name: str) -> None:
    """Raise SpecError for an array in a device's memory: bringing it to the host is the caller's decision."""
    if isinstance(value, np.ndarray | np.generic | type) or not hasattr(value, "__dlpack_device__"):
        return
    try:
        kind, index = value.__dlpack_device__()
    except Exception:  # spread over devices, say: whether numpy can read it is then for its __array__ to tell
        return
    if kind not in _HOST_DEVICES:
        raise SpecError(
            f"input {name!r} lies on a device (DLPack's device type {int(kind)}, number {index}), not in host memory; "
            "copy it to the host, into a numpy array"
        )


def _from_buffer(value: object) -> np.ndarray[Any, Any] | None:
    try:
        buffer = memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        return None
    try:
        return np.asarray(buffer)
    except (TypeError, ValueError) as error:
        raise TypeError(f"numpy cannot read a buffer of the format {buffer.format!r}: {error}") from error


# ---- Python's own values


def _from_python(value: object, spec: TensorSpec | None, name: str) -> np.ndarray[Any, Any]:
    if spec is None:
        raise SpecError(
            f"input {name!r} is of type {_type_name(value)}, and no spec gives its dtype; pass a numpy array, or load the model with "
            "inputs=[TensorSpec(...)]"
        )
    shape, elements = _unnest(value, name)
    family = _Family.of(spec, name)
    for kind in {type(element) for element in elements}:
        if not issubclass(kind, family.types):
            at = next(index for index, element in enumerate(elements) if type(element) is kind)
            raise SpecError(
                f"{_element(name, at, shape)} is {_shortened(elements[at])} of type {_type_name(elements[at])}, "
                f"which is no value for the dtype {spec.dtype}{_advice(elements[at])}"
            )
    try:
        with np.errstate(all="ignore"):
            array, bad = family.convert(elements)
    except (OverflowError, TypeError, ValueError) as error:
        raise SpecError(f"input {name!r} cannot become an array of {spec.dtype}: {error}") from None
    if bad.any():
        at = int(bad.argmax())
        raise SpecError(
            f"{_element(name, at, shape)} is {_shortened(elements[at])}, which {spec.dtype} cannot hold{family.range}"
        )
    return array.reshape(shape)


def _unnest(value: object, name: str) -> tuple[tuple[int, ...], list[Any]]:
    """The shape that nested lists (or tuples) have, and their elements in row-major order. Raises SpecError for ragged ones."""
    shape: list[int] = []
    level: list[Any] = [value]
    while level and any(isinstance(item, list | tuple) for item in level):
        sizes = {len(item) if isinstance(item, list | tuple) else -1 for item in level}
        if len(sizes) > 1:
            found = ", ".join("a single value" if size < 0 else f"{size} items" for size in sorted(sizes))
            raise SpecError(
                f"input {name!r} is a ragged list: at depth {len(shape)} lie {found} side by side"
            )
        shape += sizes
        if len(shape) > wire.MAX_RANK:
            raise SpecError(f"input {name!r} is a list nested more than {wire.MAX_RANK} levels deep")
        level = [item for part in level for item in part]
    return tuple(shape), level


class _Family(ABC):
    """How Python values become elements of one dtype: which types are taken, and the conversion."""

    #: Types of which every element must be.
    types: tuple[type, ...] = ()
    #: Said of a value that the dtype cannot hold: its range.
    range = ""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype

    @abstractmethod
    def convert(self, elements: list[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """A 1-d array of the elements, and a mask of those that the dtype cannot hold."""

    @staticmethod
    def of(spec: TensorSpec, name: str) -> _Family:
        if spec.dtype == "string":
            return _Text(str)
        if spec.dtype == "bytes":
            return _Text(bytes)
        dtype = spec.numpy_dtype
        assert dtype is not None
        if spec.dtype in wire.EXTENSIONS:
            if dtype.names is not None:
                raise SpecError(
                    f"input {name!r}: Python values become {spec.dtype} only where the package ml_dtypes is installed; "
                    "install it, or pass an array"
                )
            return _Int(dtype) if "int" in spec.dtype else _Float(dtype)
        family = _FAMILIES.get(dtype.kind)
        if family is None:
            raise SpecError(f"input {name!r}: Python values cannot become {spec.dtype}; pass a numpy array")
        return family(dtype)


class _Bool(_Family):
    types = (bool, np.bool_)

    def convert(self, elements: list[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return np.array(elements, self.dtype), np.zeros(len(elements), bool)


class _Int(_Family):
    types = (bool, np.bool_, int, np.integer)

    def convert(self, elements: list[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        limits = _limits("iinfo", self.dtype)
        lowest, highest = int(limits.min), int(limits.max)
        self.range = f" ({lowest} to {highest})"
        bad = np.array([not lowest <= element <= highest for element in elements], bool)
        if bad.any():
            return np.zeros(len(elements), self.dtype), bad
        wide = np.uint64 if highest > 1 << 62 and lowest == 0 else np.int64
        return np.array(elements, wide).astype(self.dtype), bad


class _Float(_Family):
    types = (bool, np.bool_, int, np.integer, float, np.floating)

    def convert(self, elements: list[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        limits = _limits("finfo", self.dtype)
        largest, epsilon = limits.max, limits.eps
        self.range = f" (up to {largest})"
        wide = np.array(
            elements, np.promote_types(np.float64, self.dtype) if self.dtype.kind == "f" else np.float64
        )
        array = wide.astype(self.dtype)
        back = array.astype(wide.dtype)
        bad = np.isfinite(wide) != np.isfinite(back)
        # Kinds without infinity end at their largest value: what rounds to it is in range, anything above is not.
        bad |= np.isfinite(wide) & (
            np.abs(wide) > wide.dtype.type(largest) * (1 + wide.dtype.type(epsilon) / 2)
        )
        bad |= np.isnan(wide) != np.isnan(back)
        return array, bad


class _Complex(_Family):
    types = (*_Float.types, complex, np.complexfloating)

    def convert(self, elements: list[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        wide = np.array(elements, np.promote_types(np.complex128, self.dtype))
        array = wide.astype(self.dtype)
        return array, np.isfinite(wide) != np.isfinite(array)


class _Date(_Family):
    types = (datetime.date, np.datetime64)

    def convert(self, elements: list[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        if any(getattr(element, "tzinfo", None) is not None for element in elements):
            raise ValueError(
                "numpy's times have no time zone; convert to UTC and drop it with .replace(tzinfo=None)"
            )
        return _exact_times(elements, self.dtype)


class _Duration(_Family):
    types = (datetime.timedelta, np.timedelta64)

    def convert(self, elements: list[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return _exact_times(elements, self.dtype)


class _Text(_Family):
    """Text or bytes, as an array of objects: numpy's own text dtypes drop trailing NULs."""

    def __init__(self, kind: type) -> None:
        super().__init__(np.dtype(object))
        self.types = (kind,)

    def convert(self, elements: list[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        array = np.empty(len(elements), object)
        array[:] = elements
        return array, np.zeros(len(elements), bool)


#: By numpy's letter for the kind of a dtype.
_FAMILIES: dict[str, Callable[[np.dtype[Any]], _Family]] = {
    "b": _Bool,
    "i": _Int,
    "u": _Int,
    "f": _Float,
    "c": _Complex,
    "M": _Date,
    "m": _Duration,
}


def _exact_times(
    elements: list[Any], dtype: np.dtype[Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Times in the unit of `dtype`; those that do not come back equal (out of range, or finer than the unit) are bad."""
    array = np.empty(len(elements), dtype)
    bad = np.zeros(len(elements), bool)
    for index, element in enumerate(elements):
        given = np.asarray(element, dtype.kind + "8")
        array[index] = given.astype(dtype, casting="same_kind")  # a year has no fixed number of seconds
        bad[index] = not (np.isnat(given) or array[index].astype(given.dtype) == given)
    return array, bad


def _limits(which: str, dtype: np.dtype[Any]) -> Any:
    """numpy's iinfo or finfo of `dtype`, or ml_dtypes' for its kinds."""
    library = np if dtype.name not in wire.EXTENSIONS else sys.modules["ml_dtypes"]
    return getattr(library, which)(dtype)


def _element(name: str, index: int, shape: tuple[int, ...]) -> str:
    place = "".join(f"[{step}]" for step in np.unravel_index(index, shape)) if shape else ""
    return f"input {name!r}: element {place}" if place else f"input {name!r}"


def _advice(value: object) -> str:
    return "; join arrays with np.stack" if isinstance(value, np.ndarray) or array_kinds.of(value) else ""


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def snapshot(value: object, name: str) -> Any:
    """A copy of an input that nobody else can change: an array of the same kind, or the same Python value."""
    if isinstance(value, _PYTHON_VALUES) and not isinstance(value, np.generic):
        return copy.deepcopy(value)
    array = np.array(to_numpy(value, None, name))
    kind = array_kinds.of(value)
    return array if kind is None else kind.from_numpy(array)
