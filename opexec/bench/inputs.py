"""Inputs to call a model with: made from its specs, with a seed, or given.

Open sizes are given by name for symbols (``{"height": 224}``); `batch` is the size of every input's first axis that is open,
named or not, and 1 where nobody says. Shapes can be given whole. What is random is small and harmless to most models:

    floats, complex       normal, around 0 with deviation 1
    uint8                 0 to 255, as in pictures
    other whole numbers   0 to 9: often they are places in a table, whose length is not known here
    bool                  either
    string, bytes         words of eight letters
    anything else         zeros
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OpexecError, SpecError
from ..ipc import wire
from ..spec import Dim, TensorSpec, fit_shape

if TYPE_CHECKING:
    from ..model import Model
    from .setups import Variant

Array = np.ndarray[Any, Any]

_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


@dataclass(frozen=True)
class InputsAsked:
    """What the command line or a program says about inputs; `make` says what each means."""

    given: Mapping[str, Any] = field(default_factory=dict)
    """Arrays, or a function of the input's spec (None where there is none) that makes one."""
    shapes: Mapping[str, TensorSpec] = field(default_factory=dict)
    seed: int = 0

    def make(self, model: Model, variant: Variant) -> dict[str, Array]:
        specs = {spec.name: spec for spec in model.inputs or ()}
        given = {
            name: value(specs.get(name)) if callable(value) else value for name, value in self.given.items()
        }
        return make(
            model.inputs,
            given=given,
            sizes=variant.sizes,
            batch=variant.batch,
            shapes=self.shapes,
            seed=self.seed,
        )


def make(
    specs: Sequence[TensorSpec] | None,
    *,
    given: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    batch: int | None = None,
    shapes: Mapping[str, TensorSpec] | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """An array for each input. `given` ones are taken as they are, and the sizes of symbols follow from them.

    `shapes`: for inputs whose size, or all, the model's specs leave open.

    Raises SpecError where a size stays open, for a name that the model does not have, and for sizes that nothing takes.
    """
    given, shapes = dict(given or {}), dict(shapes or {})
    own = {spec.name: spec for spec in specs or ()}
    _check_names(specs, [*given, *shapes])
    wanted = {**own, **{name: _refined(own.get(name), asked) for name, asked in shapes.items()}}
    if specs is None and not wanted and not given:
        raise SpecError(
            "the model has no specs, so that nothing can be made up: give its inputs (--input NAME=@FILE), or their dtypes and shapes "
            "(--shape NAME=float32[1,3])"
        )
    symbols = _symbols(wanted, given, sizes or {}, batch)
    optional = getattr(specs, "optional", ())
    random = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for name, spec in wanted.items():
        if name in given:
            made[name] = given[name]
        elif name not in optional or name in shapes:
            made[name] = _random(spec, _shape(spec, symbols, batch), random)
    return {**made, **given}


def from_file(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` file, each the input of its name. Raises OpexecError; no pickle is read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("expected an .npz file")
            return {key: archive[key] for key in archive.files}
    except Exception as error:  # a damaged archive raises nearly anything
        text = getattr(error, "strerror", None) or error
        raise OpexecError(f"{path} cannot be read as arrays without objects: {text}") from error


def parse_shape(name: str, text: str) -> TensorSpec:
    """The spec that ``float32[1, 224, 224, 3]`` or ``1,224,224,3`` means; without a dtype, of float32 or what the model's spec says.

    Raises ValueError.
    """
    match = re.fullmatch(r"\s*([a-z]\w*)?\s*(?:\[([\d,\s]*)\]|([\d,\s]+))\s*", text)
    if match is None:
        raise ValueError(f"expected sizes such as 1,224,224,3 or float32[1,224,224,3], got {text!r}")
    inside = (match[2] if match[2] is not None else match[3]).strip().rstrip(",")
    try:
        sizes = [int(size) for size in inside.split(",")] if inside else []
        return TensorSpec(name, match[1] or "float32", sizes)
    except SpecError as error:
        raise ValueError(str(error)) from None


def _check_names(specs: Sequence[TensorSpec] | None, names: Sequence[str]) -> None:
    if specs is None:
        return
    known = [spec.name for spec in specs]
    for name in names:
        if name not in known:
            raise SpecError(
                f"there is no input {name!r}; the model's inputs are {', '.join(map(repr, known)) or 'none'}"
            )


def _refined(own: TensorSpec | None, asked: TensorSpec) -> TensorSpec:
    """The model's own spec with the shape that was asked for."""
    if own is None:
        return asked
    assert asked.shape is not None
    fit_shape(own, asked.shape)  # type: ignore[arg-type]  # sizes alone, by `parse_shape`
    return TensorSpec(own.name, own.dtype, asked.shape)


def _symbols(
    specs: Mapping[str, TensorSpec], given: Mapping[str, Any], sizes: Mapping[str, int], batch: int | None
) -> dict[str, int]:
    symbols: dict[str, int] = {}
    for name, spec in specs.items():
        if name in given and spec.shape is not None:
            shape = np.shape(given[name])
            symbols.update(
                {dim: size for dim, size in zip(spec.shape, shape) if isinstance(dim, str)}
                if len(shape) == len(spec.shape)
                else {}
            )
    used = {dim for spec in specs.values() for dim in spec.shape or () if isinstance(dim, str)}
    for symbol in sizes:
        if symbol not in used:
            raise SpecError(
                f"no input has the size {symbol!r}; those that have names are {', '.join(map(repr, sorted(used))) or 'none'}"
            )
    firsts = [spec.shape[0] for name, spec in specs.items() if spec.shape and name not in given]
    if batch is not None and all(isinstance(dim, int) for dim in firsts):
        raise SpecError("a batch size was given, but the first axis of every input is fixed")
    named = {dim for dim in firsts if isinstance(dim, str)}
    return {**dict.fromkeys(named, 1 if batch is None else batch), **symbols, **sizes}


def _shape(spec: TensorSpec, symbols: Mapping[str, int], batch: int | None) -> tuple[int, ...]:
    if spec.shape is None:
        raise SpecError(f"input {spec.name!r} has no known shape: give it (--shape {spec.name}=1,3)")
    return tuple(_size(spec, axis, dim, symbols, batch) for axis, dim in enumerate(spec.shape))


def _size(spec: TensorSpec, axis: int, dim: Dim, symbols: Mapping[str, int], batch: int | None) -> int:
    if isinstance(dim, int):
        return dim
    if dim is None:
        if axis == 0:
            return 1 if batch is None else batch
        sizes = ",".join(
            "1" if size is None else str(symbols.get(str(size), size)) for size in spec.shape or ()
        )
        raise SpecError(
            f"axis {axis} of {spec!r} may have any size: give the shape (--shape {spec.name}={sizes})"
        )
    if dim not in symbols:
        raise SpecError(f"{dim!r} in {spec!r} may have any size: give it (--size {dim}=N, in Python sizes=)")
    return symbols[dim]


def _random(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = spec.numpy_dtype
    if dtype is None:
        words = ["".join(random.choice(_LETTERS, 8)) for _ in range(int(np.prod(shape)))]
        texts = np.empty(shape, object)
        texts.ravel()[:] = [word.encode() for word in words] if spec.dtype == "bytes" else words
        return texts
    if dtype.names is None and (dtype.kind in "fc" or wire.extension_name(dtype) is not None):
        values: Array = random.standard_normal(shape, np.float32)
        if dtype.kind == "c":
            values = values + 1j * random.standard_normal(shape, np.float32)
        return np.asarray(values).astype(dtype)
    if dtype == np.bool_:
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return random.integers(0, 256 if dtype == np.uint8 else 10, shape).astype(dtype)
    return np.zeros(shape, dtype)
