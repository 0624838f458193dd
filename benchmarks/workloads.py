"""A workload: which model is called with how many bytes, what goes in and what must come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks import models

Array = npt.NDArray[np.float32]
Inputs = Mapping[str, Array]
Model = Callable[..., dict[str, Array]]

DTYPE = np.dtype(np.float32)
SIZES = (64, 4_096, 602_112, 6_912_000, 64 * 2**20)
"""Bytes of input: 16 numbers, a page, a 3x224x224 float image, a 1200x1920x3 byte image, and 64 MiB."""
HUNDRED_SHAPE = (10, 5)
HUNDRED_NBYTES = 100 * math.prod(HUNDRED_SHAPE) * DTYPE.itemsize


@dataclass(frozen=True, order=True)
class Workload:
    """`model` is a factory of `benchmarks.models`; `nbytes` is the size of all its inputs together, float32."""

    model: str
    nbytes: int

    def __str__(self) -> str:
        return f"{self.model}/{self.nbytes}"

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        if self.model == "hundred":
            return {f"x{index}": HUNDRED_SHAPE for index in range(100)}
        return {"x": (self.nbytes // DTYPE.itemsize,)}

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.input_shapes["x"] if self.model == "echo" else (1,)

    @property
    def output_nbytes(self) -> int:
        return math.prod(self.output_shape) * DTYPE.itemsize

    def load(self) -> Model:
        """The model itself, in the calling process."""
        model: Model = getattr(models, self.model)()
        return model

    def inputs(self) -> dict[str, Array]:
        """Freshly made inputs, every element different from its neighbours."""
        made: dict[str, Array] = {}
        first = 1
        for name, shape in self.input_shapes.items():
            size = math.prod(shape)
            # A float32 counts exactly up to 2**24; 64 MiB of them are just that many.
            made[name] = np.arange(first, first + size, dtype=DTYPE).reshape(shape)
            first += size
        return made

    def check(self, result: object, inputs: Inputs) -> None:
        """Raise ValueError unless `result` is what the model gives for `inputs`."""
        last = list(inputs.values())[-1]
        expected = last if self.model == "echo" else last.reshape(-1)[-1:]
        if not isinstance(result, np.ndarray):
            raise ValueError(f"{self}: expected an array, got {type(result).__name__}")
        if result.dtype != DTYPE or result.shape != expected.shape:
            raise ValueError(f"{self}: expected float32 {expected.shape}, got {result.dtype} {result.shape}")
        if not np.array_equal(result, expected):
            raise ValueError(f"{self}: the answer has the right shape but wrong numbers")
