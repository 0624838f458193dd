"""What is checked of a call's inputs besides their spec, and what a spec is told of a call's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import SpecError
from ..ipc import wire
from ..spec import Signature

_TEXT = np.dtype(str)
_BYTES = np.dtype(bytes)


def signatures(names: Sequence[str], arrays: Sequence[np.ndarray[Any, Any]]) -> dict[str, Signature]:
    """Name -> (dtype, shape), as `bind_inputs` and `bind_outputs` take it."""
    return {name: (_dtype_of(array), array.shape) for name, array in zip(names, arrays, strict=True)}


def _dtype_of(array: np.ndarray[Any, Any]) -> np.dtype[Any]:
    """The array's dtype; for an array of objects that begins with a text or with bytes the dtype that stands for such in a spec."""
    if array.dtype.kind == "O" and array.size:
        first = array.flat[0]
        if isinstance(first, str):
            return _TEXT
        if isinstance(first, bytes):
            return _BYTES
    return array.dtype


def split(inputs: Any) -> tuple[tuple[str, ...], list[Any]]:
    """The names and values of a mapping. Raises SpecError for anything else."""
    try:
        return tuple(inputs), [*inputs.values()]
    except (AttributeError, TypeError):
        raise SpecError(
            f"the inputs must be a mapping of names to arrays, got an object of type {type(inputs).__name__}"
        ) from None


def check_names(names: Sequence[object]) -> None:
    """Raise SpecError unless all are str."""
    for name in names:
        if not isinstance(name, str):
            raise SpecError(f"the inputs must be a mapping of names to arrays; {name!r} is no name")


def check_texts(names: Sequence[str], arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Raise SpecError for an array of objects that does not hold only texts or only bytes."""
    for name, array in zip(names, arrays, strict=True):
        if wire.is_text(array.dtype):
            try:
                wire.encode_texts(array)
            except TypeError as error:
                raise SpecError(f"input {name!r} is an array of objects: {error}") from None
