"""What may name a dtype that a tensor has, and the one name under which it is kept."""

from __future__ import annotations

import ast
import difflib
import sys
from typing import Any

import numpy as np

from .errors import SpecError
from .ipc import wire
from .ipc.faults import ProtocolError

NUMBERS = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
TEXTS = ("string", "bytes")


def canonical_dtype(dtype: object) -> str:
    """The canonical name of whatever names a dtype that a tensor can have (`TensorSpec` has the list). Raises SpecError."""
    parsed = parse_dtype(dtype)
    if parsed is None:
        return "string"
    extension = wire.extension_name(parsed)
    if extension is not None:
        return str(extension)
    if parsed.kind in "UT":
        return "string"
    if parsed.kind == "S":
        return "bytes"
    if parsed.hasobject:
        raise SpecError('a dtype that holds Python objects cannot travel; use "string" or "bytes" for text')
    if parsed.subdtype is not None:
        base, dims = parsed.subdtype
        raise SpecError(
            f"the dtype has a shape of its own; use dtype {base.name!r}, and put {dims} into the shape"
        )
    parsed = parsed.newbyteorder("=")
    if parsed.itemsize == 0:
        raise SpecError("the dtype's elements have no size")
    if parsed.kind in "mM" and np.datetime_data(parsed)[0] == "generic":
        raise SpecError(f'the dtype needs a unit: "{parsed.name}[ns]"')
    if parsed.names is not None:
        name = str(parsed)
    else:
        name = f"V{parsed.itemsize}" if parsed.kind == "V" else parsed.name
    if not (_reads_back(name, parsed) and _travels(parsed)):
        raise SpecError(
            f"the dtype {parsed} cannot be told to a worker's numpy; expected {_accepted_dtypes()}"
        )
    return name


def parse_dtype(dtype: object) -> np.dtype[Any] | None:
    """The numpy dtype meant, None for "string" (which numpy calls str). Raises SpecError."""
    if isinstance(dtype, np.dtype):
        return dtype
    if isinstance(dtype, str):
        if dtype == "string":
            return None
        if dtype in wire.EXTENSIONS:
            return wire.extension_dtype(dtype)
    elif dtype is None:
        # numpy would take it for float64.
        raise SpecError(f"expected {_accepted_dtypes()}, got None")
    else:
        name = _framework_dtype(dtype)
        if name is not None:
            return parse_dtype(name)
    try:
        if isinstance(dtype, type) and issubclass(dtype, np.dtype):
            return dtype()  # type: ignore[call-overload,no-any-return]
        # What a structured dtype is called is how Python writes it down.
        structured = isinstance(dtype, str) and dtype[:1] in ("[", "{")
        return np.dtype(ast.literal_eval(dtype) if structured else dtype)  # type: ignore[arg-type]
    except (TypeError, ValueError, SyntaxError, KeyError, OverflowError, RecursionError, MemoryError):
        close = difflib.get_close_matches(str(dtype).lower(), (*NUMBERS, *TEXTS, *wire.EXTENSIONS), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise SpecError(f"expected {_accepted_dtypes()}, got {dtype!r}{hint}") from None


def _reads_back(name: str, dtype: np.dtype[Any]) -> bool:
    """Whether the canonical name means `dtype` again: a structure over dtypes that are not numpy's own has no such name."""
    try:
        return parse_dtype(name) == dtype
    except SpecError:
        return False


def _travels(dtype: np.dtype[Any]) -> bool:
    """Whether the wire format has it: it knows few of the dtypes that other packages register with numpy."""
    try:
        return bool(wire.build_dtype(wire.describe_dtype(dtype)) == dtype)
    except (TypeError, ProtocolError):
        return False


def _framework_dtype(dtype: object) -> str | None:
    """The name of a dtype of a framework that the caller has imported; None for anything else."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(dtype, getattr(torch, "dtype", ())):
        return str(dtype).removeprefix("torch.")
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(dtype, getattr(tensorflow, "DType", ())):
        return str(dtype.name)  # type: ignore[attr-defined]
    return None


def _accepted_dtypes() -> str:
    return (
        f"a dtype ({', '.join((*NUMBERS, *TEXTS))}, bfloat16, a float8 kind, or whatever numpy calls a dtype)"
    )
