"""The same calls to several models, in turn, so that whatever the machine does meanwhile meets all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import opexec

WARM = 20


def rounds(
    models: Sequence[opexec.Model], inputs: Sequence[dict[str, Any]], numbers: Iterable[int], warm: int = WARM
) -> npt.NDArray[np.float64]:
    """Milliseconds that each call took, of shape (rounds, models). A round calls every model once, each round in another order; `warm` calls of each come before."""
    order = np.random.default_rng(0)
    for _ in range(warm):
        for model, given in zip(models, inputs, strict=True):
            model.infer(given)
    gc.collect()
    gc.disable()
    try:
        taken = []
        for _ in numbers:
            row = np.zeros(len(models))
            for index in order.permutation(len(models)):
                infer, given = models[index].infer, inputs[index]
                begin = time.perf_counter_ns()
                infer(given)
                row[index] = time.perf_counter_ns() - begin
            taken.append(row / 1e6)
    finally:
        gc.enable()
    return np.array(taken)
