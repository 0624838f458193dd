"""Arrays that code written for eager tensors can use."""

from __future__ import annotations

from typing import Any

import numpy as np


class EagerArray(np.ndarray):
    """A numpy array with the `numpy()` of TensorFlow's eager tensors; a view, over the same memory."""

    def numpy(self) -> np.ndarray[Any, Any]:
        return np.asarray(self)


def eager(value: Any) -> Any:
    """`value` with each numpy array in it (itself, or an item of a list, tuple or dict) as an EagerArray; tensors are what they are."""
    if type(value) is np.ndarray:
        return value.view(EagerArray)
    if isinstance(value, dict):
        return {name: eager(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(eager, value))
    return value
