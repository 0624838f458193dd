"""Along which dimension calls are joined, in each tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..calling.signature import check_names, check_texts, signatures
from ..errors import SpecError
from ..ipc.wire import is_text
from ..spec import TensorSpec, bind_inputs

_SIGNATURES_KEPT = 4096


class Tensors(NamedTuple):
    """The inputs of a call that fits the specs, in their order."""

    #: Equal for calls that can be joined: names, dtypes, and shapes without the joined dimension.
    key: tuple[Any, ...]
    names: tuple[str, ...]
    arrays: list[np.ndarray[Any, Any]]
    #: Entries along the joined dimension.
    rows: int


class Seam:
    """The joined dimension of a model's tensors. Raises SpecError, listing the symbols there are, where there is none."""

    def __init__(
        self,
        model: str,
        inputs: tuple[TensorSpec, ...] | None,
        outputs: tuple[TensorSpec, ...] | None,
        symbol: str | None,
    ) -> None:
        if not inputs or not outputs:
            raise SpecError(
                f"model {model!r} cannot be batched: calls are joined along a symbol of its specs, and it has none "
                f"for its {'inputs' if not inputs else 'outputs'}; give load inputs=[TensorSpec('x', 'float32', ['n', 3])] "
                "and outputs=[...]"
            )
        self.symbol = _symbol(model, inputs, outputs, symbol)
        self._specs = inputs
        #: The joined axis by the name of the tensor.
        self.inputs = _axes(inputs, self.symbol)
        self.outputs = _axes(outputs, self.symbol)
        self._order = {spec.name: number for number, spec in enumerate(inputs)}
        #: For signatures that fit: how to order the arrays, and key, names and rows.
        self._known: dict[tuple[Any, ...], tuple[list[int], tuple[Any, ...], tuple[str, ...], int, bool]] = {}

    def tensors(self, names: tuple[str, ...], arrays: list[np.ndarray[Any, Any]]) -> Tensors:
        """A call's inputs, checked against the specs. Raises SpecError."""
        signature = names, tuple([array.dtype for array in arrays]), tuple([array.shape for array in arrays])
        known = self._known.get(signature)
        if known is None:
            known = self._examine(names, arrays)
            if len(self._known) > _SIGNATURES_KEPT:
                self._known.clear()
            if not known[-1]:
                self._known[signature] = known
        order, key, names, rows, _ = known
        return Tensors(key, names, [arrays[place] for place in order], rows)

    def _examine(
        self, names: tuple[str, ...], arrays: Sequence[np.ndarray[Any, Any]]
    ) -> tuple[list[int], tuple[Any, ...], tuple[str, ...], int, bool]:
        check_names(names)
        symbols = bind_inputs(self._specs, signatures(names, arrays))
        check_texts(names, arrays)
        if self.symbol not in symbols:
            raise SpecError(
                f"a batched call needs an input with the dimension {self.symbol!r}; got {', '.join(map(repr, names)) or 'none'}"
            )
        order = sorted(range(len(names)), key=lambda place: self._order[names[place]])
        ordered = tuple(names[place] for place in order)
        texts = [is_text(arrays[place].dtype) for place in order]
        parts = []
        for place, text in zip(order, texts, strict=True):
            array, axis = arrays[place], self.inputs[names[place]]
            shape = array.shape[:axis] + array.shape[axis + 1 :]
            parts.append((None if text else array.dtype.newbyteorder("="), shape))
        return order, (ordered, tuple(parts)), ordered, symbols[self.symbol], any(texts)


def at(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    """The index of rows from `start` to `stop` along `axis`."""
    return (slice(None),) * axis + (slice(start, stop),)


def _axes(specs: tuple[TensorSpec, ...], symbol: str) -> Mapping[str, int]:
    return {spec.name: spec.shape.index(symbol) for spec in specs if spec.shape is not None}


def _symbols(spec: TensorSpec) -> list[str]:
    """The symbols that stand once in its shape."""
    dims = [dim for dim in spec.shape or () if isinstance(dim, str)]
    return [dim for dim in dims if dims.count(dim) == 1]


def _symbol(
    model: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], wanted: str | None
) -> str:
    every = (*inputs, *outputs)
    common = [symbol for symbol in _symbols(every[0]) if all(symbol in _symbols(spec) for spec in every)]
    if wanted is None and len(common) == 1:
        return common[0]
    if wanted in common:
        assert wanted is not None
        return wanted
    listed = "".join(
        f"\n  {what} {spec!r}" for what, specs in (("input", inputs), ("output", outputs)) for spec in specs
    )
    if wanted is not None:
        without = next(spec for spec in every if wanted not in _symbols(spec))
        reason = f"{without.name!r} has no dimension {wanted!r}, or has it twice"
    elif common:
        reason = f"several symbols are a dimension of all tensors, {', '.join(map(repr, common))}: name one, as in BatchPolicy(symbol={common[0]!r})"
    else:
        reason = "no symbol is a dimension of all tensors"
    raise SpecError(
        f"model {model!r} cannot be batched: calls are joined along a symbol that every input and output has, once. {reason}. "
        f"Its tensors are:{listed}"
    )
