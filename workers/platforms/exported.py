"""Specs of the files of torch.export and jax.export, which tell the dtype and shape of every tensor, and how the results are nested."""

from __future__ import annotations

import numpy as np

from opexec.workers.structure import flatten


def spec(name, dtype, shape):
    return {"name": name, "dtype": dtype, "shape": [_size(size) for size in shape]}


def output_specs(tensors, nested):
    """Specs under the names that `workers.structure` gives the outputs; None for outputs that cannot travel, as the first call says.

    `tensors` is a list of ``(dtype, shape)``; ``nested(leaves)`` is the model's result for as many leaves.
    """
    try:
        names, _, _ = flatten(nested([np.empty(0) for _ in tensors]))
    except (TypeError, ValueError):
        return None
    return [spec(name, dtype, shape) for name, (dtype, shape) in zip(names, tensors)]


def _size(size):
    """A size, the symbol of one that is open, or None where it is computed from others."""
    if isinstance(size, int):
        return size
    text = str(size)
    return text if text.isidentifier() else None
