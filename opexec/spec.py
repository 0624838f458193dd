"""What a model takes and gives: names, dtypes and shapes, and checking a call against them.

A shape's entry is a size, None for any size, or a symbol: a name that has one value in a call, over inputs and outputs together.
`bind_inputs` and `bind_outputs` check tensors of a call and find the symbols' values; they run once for each new signature, and what
they raise names every misfit of the call at once.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dtypes import NUMBERS, TEXTS, canonical_dtype, parse_dtype
from .errors import SpecError
from .ipc import wire

#: What a TensorSpec's shape holds: a size, a symbol, or None for any size.
Dim = int | str | None

#: A tensor of a call, as far as a spec is concerned.
Signature = tuple[np.dtype[Any], tuple[int, ...]]


@dataclass(frozen=True, init=False, repr=False)
class TensorSpec:
    """One input or output of a model.

    `name` is any non-empty str. `dtype` is whatever names a dtype, and is kept under its canonical name:

    - numpy's numbers and times: ``"float32"``, ``np.uint8``, ``np.dtype(">i4")``, ``"datetime64[ns]"``. Aliases and Python types mean what
      they mean to numpy: ``"double"``, ``"float"`` and ``float`` are float64, ``"int"`` and ``int`` are int64. Byte order is dropped.
    - what ml_dtypes adds to numpy: ``"bfloat16"``, ``"float8_e4m3fn"`` and the other float8 kinds, ...
    - ``"string"`` (also str, ``"U8"``, numpy's StringDType): text of any length; ``"bytes"`` (also bytes, ``"S5"``): bytes of any length.
    - structured dtypes, as numpy takes them: ``[("id", "i4"), ("score", "f4")]``; raw bytes of a fixed size: ``"V16"``.
    - dtypes of torch and tensorflow, such as ``torch.bfloat16``.

    `shape` is a sequence of sizes (0 and up), symbols (str) and None (any size), or None as a whole: not checked.

    Raises SpecError, saying what was expected, for anything else.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None

    def __init__(self, name: str, dtype: object, shape: Sequence[Dim] | None) -> None:
        if not isinstance(name, str) or not name:
            raise SpecError(f"a tensor's name must be a non-empty str, got {name!r}")
        object.__setattr__(self, "name", str(name))
        try:
            object.__setattr__(self, "dtype", canonical_dtype(dtype))
            object.__setattr__(self, "shape", _canonical_shape(shape))
        except SpecError as error:
            raise SpecError(f"the spec of {name!r}: {error}") from None

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> TensorSpec:
        """Make a spec from ``{"name": ..., "dtype": ..., "shape": ...}``, the form that packages use."""
        if not isinstance(entry, Mapping) or set(entry) != {"name", "dtype", "shape"}:
            raise SpecError(f'a spec is a TensorSpec or a dict of "name", "dtype" and "shape", got {entry!r}')
        return cls(entry["name"], entry["dtype"], entry["shape"])

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain data that json can write; `from_dict` reads it back to an equal spec."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
        }

    def __repr__(self) -> str:
        return f"{self.name}: {_tensor_text(self.dtype, self.shape)}"

    @property
    def numpy_dtype(self) -> np.dtype[Any] | None:
        """The native numpy dtype; None for "string" and "bytes", whose elements have no fixed size."""
        return None if self.dtype in TEXTS else parse_dtype(self.dtype)

    def accepts(self, dtype: np.dtype[Any]) -> bool:
        """Whether an array of `dtype` fits, byte order aside. An object array fits a spec of text or bytes; its elements are
        checked when they are encoded."""
        if dtype.kind == "O":
            return self.dtype in TEXTS
        try:
            return canonical_dtype(dtype) == self.dtype
        except SpecError:
            return False


def parse_specs(
    specs: Iterable[TensorSpec | Mapping[str, Any]] | None, kind: str
) -> tuple[TensorSpec, ...] | None:
    """Specs given as `TensorSpec` or dicts, as a tuple of `TensorSpec`; None (nothing is checked) stays None, and `InputSpecs` stay such.

    `kind` ("input" or "output") words the SpecError for what is no spec and for two specs of one name.
    """
    if specs is None:
        return None
    if isinstance(specs, TensorSpec | Mapping | str) or not isinstance(specs, Iterable):
        raise SpecError(f"the {kind} specs must be a list of TensorSpec or dicts, got {specs!r}")
    parsed = tuple(spec if isinstance(spec, TensorSpec) else TensorSpec.from_dict(spec) for spec in specs)
    names = set()
    for spec in parsed:
        if spec.name in names:
            raise SpecError(f"two {kind} specs are named {spec.name!r}; names must differ")
        names.add(spec.name)
    return InputSpecs(parsed, specs.optional) if isinstance(specs, InputSpecs) else parsed


# ---- checking a call


class InputSpecs(tuple[TensorSpec, ...]):
    """The specs of inputs of which some may be left out of a call; a tuple like any other to everybody else."""

    optional: frozenset[str]

    def __new__(cls, specs: Iterable[TensorSpec], optional: Iterable[str] = ()) -> InputSpecs:
        made = super().__new__(cls, specs)
        made.optional = frozenset(optional)
        return made


def bind_inputs(specs: Iterable[TensorSpec], tensors: Mapping[str, Signature]) -> dict[str, int]:
    """Check a call's inputs, given as name -> (dtype, shape), and return the values of their symbols.

    Raises one SpecError that names every misfit: a missing or an extra input, a wrong dtype, rank or size, a symbol of two values.
    """
    return _bind("input", specs, tensors, {})


def bind_outputs(
    specs: Iterable[TensorSpec], tensors: Mapping[str, Signature], symbols: Mapping[str, int]
) -> dict[str, int]:
    """Check a call's outputs like `bind_inputs`; `symbols` are the values that the inputs gave.

    A symbol that no input has takes its value from the first output that has it. Returns the values of all symbols.
    """
    return _bind("output", specs, tensors, symbols)


def fit_shape(spec: TensorSpec, shape: Sequence[int]) -> tuple[int, ...]:
    """Check one tensor's shape against its spec, by itself, and return it as a tuple of ints. Raises SpecError."""
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        raise SpecError(f"{spec.name!r}: a shape must be a sequence of ints, got {shape!r}") from None
    if any(size < 0 for size in sizes):
        raise SpecError(f"{spec.name!r}: a size cannot be negative, got the shape {list(sizes)}")
    reasons = _shape_misfits(spec, sizes, {}, {}, spec.name)
    if reasons:
        raise SpecError(
            f"{spec.name!r}: expected {spec!r}, got the shape {list(sizes)}: {'; '.join(reasons)}"
        )
    return sizes


def concrete_shape(spec: TensorSpec, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The spec's shape with all symbols replaced by their values.

    Raises SpecError where a size stays open: an unbound symbol, a None, or a shape that is None as a whole.
    """
    if spec.shape is None:
        raise SpecError(f"{spec.name!r}: its spec leaves the shape open; give the shape")
    sizes: list[int] = []
    for axis, dim in enumerate(spec.shape):
        size = symbols.get(dim) if isinstance(dim, str) else dim
        if size is None:
            what = "any size" if dim is None else f"the unbound symbol {dim!r}"
            raise SpecError(f"{spec.name!r}: axis {axis} of {spec!r} is {what}; give the shape")
        sizes.append(size)
    return tuple(sizes)


def _bind(
    kind: str, specs: Iterable[TensorSpec], tensors: Mapping[str, Signature], symbols: Mapping[str, int]
) -> dict[str, int]:
    values = dict(symbols)
    origins = dict.fromkeys(symbols, "the inputs")
    expected = {spec.name: spec for spec in specs}
    misfits: dict[str, str] = {}  # name -> what is wrong
    optional = specs.optional if isinstance(specs, InputSpecs) else ()
    for name, spec in expected.items():
        if name not in tensors:
            if name in optional:
                continue
            misfits[name] = f"{kind} {name!r} is missing; expected {_tensor_text(spec.dtype, spec.shape)}"
            continue
        dtype, shape = tensors[name]
        reasons = []
        if not spec.accepts(dtype):
            reasons.append(f"the dtype must be {spec.dtype}{_conversion(kind, spec)}")
        reasons += _shape_misfits(spec, shape, values, origins, f"{kind} {name!r}")
        if reasons:
            expected_text = _tensor_text(spec.dtype, spec.shape)
            got_text = _tensor_text(_array_dtype_name(dtype), shape)
            misfits[name] = f"{kind} {name!r}: expected {expected_text}, got {got_text}: {'; '.join(reasons)}"
    for name in tensors:
        if name not in expected:
            misfits[name] = f"{kind} {name!r} is unknown; {_known_names(kind, name, expected, tensors)}"
    if misfits:
        raise SpecError(_summary(kind, misfits))
    return values


def _shape_misfits(
    spec: TensorSpec, shape: tuple[int, ...], values: dict[str, int], origins: dict[str, str], who: str
) -> list[str]:
    """What is wrong with `shape`. Symbols met for the first time get their value in `values`, and `who` as their origin."""
    if spec.shape is None:
        return []
    if len(shape) != len(spec.shape):
        return [f"the rank must be {len(spec.shape)}, not {len(shape)}"]
    reasons = []
    for axis, (dim, size) in enumerate(zip(spec.shape, shape, strict=True)):
        if isinstance(dim, str):
            if dim not in values:
                values[dim] = size
                origins[dim] = f"axis {axis} of {who}"
            elif values[dim] != size:
                reasons.append(f"axis {axis} is {size}, but {dim} is {values[dim]} by {origins[dim]}")
        elif dim is not None and dim != size:
            reasons.append(f"axis {axis} must be {dim}, not {size}")
    return reasons


def _known_names(
    kind: str, name: str, expected: Mapping[str, TensorSpec], tensors: Mapping[str, Signature]
) -> str:
    if not expected:
        return f"the model has no {kind}s"
    unmet = [one for one in expected if one not in tensors]
    close = difflib.get_close_matches(str(name), unmet or list(expected), n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"the model's {kind}s are {', '.join(map(repr, expected))}"


def _summary(kind: str, misfits: Mapping[str, str]) -> str:
    if len(misfits) == 1:
        return next(iter(misfits.values()))
    first = [repr(name) for name in misfits][:3]
    more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
    return f"{kind}s {', '.join(first)}{more} do not fit the spec:\n  " + "\n  ".join(misfits.values())


def _conversion(kind: str, spec: TensorSpec) -> str:
    return f" (array.astype({spec.dtype!r}) converts)" if kind == "input" and spec.dtype in NUMBERS else ""


def _array_dtype_name(dtype: np.dtype[Any]) -> str:
    try:
        return canonical_dtype(dtype)
    except SpecError:
        return str(dtype)


def _tensor_text(dtype: str, shape: Sequence[Dim] | None) -> str:
    if shape is None:
        return f"{dtype}[...]"
    return f"{dtype}[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"


# ---- canonical shapes


def _canonical_shape(shape: object) -> tuple[Dim, ...] | None:
    if shape is None:
        return None
    expected = "a shape must be a sequence of sizes, symbols (str) or None, or None as a whole"
    if isinstance(shape, str | bytes | Mapping) or not isinstance(shape, Iterable):
        raise SpecError(f"{expected}; got {shape!r}")
    dims = tuple(_canonical_dim(dim, expected) for dim in shape)
    if len(dims) > wire.MAX_RANK:
        raise SpecError(f"a tensor has at most {wire.MAX_RANK} dimensions, got {len(dims)}")
    return dims


def _canonical_dim(dim: object, expected: str) -> Dim:
    if dim is None:
        return None
    if isinstance(dim, str):
        if not dim.strip() or dim.strip().lstrip("+-").isdigit():
            raise SpecError(f"{expected}; {dim!r} is no symbol")
        return str(dim)
    if isinstance(dim, bool | np.bool_):
        raise SpecError(f"{expected}; got {dim!r}")
    try:
        size = operator.index(dim)  # type: ignore[arg-type]
    except TypeError:
        raise SpecError(f"{expected}; got {dim!r}") from None
    if size < 0:
        raise SpecError(f"a size cannot be negative, got {size}; None stands for any size")
    return size
