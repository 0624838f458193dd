"""How far a model's answers are from the right ones, added up over samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import OpexecError
from ..ipc import wire
from . import python_files

Arrays = Mapping[str, np.ndarray[Any, Any]]

#: Called with a model's outputs and the right ones, each a dict of arrays, for one sample; returns a number.
Metric = Callable[[Arrays, Arrays], float]


@dataclass
class OutputDifference:
    """One output over all samples.

    The difference of two elements is the absolute one, in float64; it is 0 for two equal ones, NaN and infinities among them, and infinite
    where only one is NaN or infinite. Texts and bytes have none: of them `differing` counts.
    """

    numbers: bool = True
    """Whether there are differences, and not texts, which are equal or not."""
    elements: int = 0
    differing: int = 0
    """Elements that are not equal."""
    largest: float = 0.0
    total: float = 0.0
    misshapen: int = 0
    """Samples whose answer has another shape than the right one; their elements are not counted."""

    @property
    def mean(self) -> float:
        return self.total / self.elements if self.elements else 0.0

    def add(self, right: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> None:
        if right.shape != got.shape:
            self.misshapen += 1
            return
        self.elements += got.size
        self.numbers = _is_number(right) and _is_number(got)
        if not self.numbers:
            self.differing += int(np.count_nonzero(np.asarray(right != got)))
            return
        difference = differences(right, got)
        self.differing += int(np.count_nonzero(difference))
        if difference.size:
            self.largest = max(self.largest, float(difference.max()))
            self.total += float(difference.sum())


def differences(right: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Absolute differences of numbers, element by element, as `OutputDifference` defines them; float64."""
    if right.dtype == got.dtype and right.dtype.kind in "iu":
        # A difference of two int64 may need 64 bits, which unsigned arithmetic has, and more than a float64 tells apart.
        unsigned = f"u{right.dtype.itemsize}"
        larger, smaller = np.maximum(right, got), np.minimum(right, got)
        exact = np.asarray(larger.astype(unsigned) - smaller.astype(unsigned))
        return exact.astype(np.float64)
    wide = np.complex128 if "c" in (right.dtype.kind, got.dtype.kind) else np.float64
    first, second = right.astype(wide), got.astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.asarray(np.abs(first - second))
    equal = (first == second) | (np.isnan(first) & np.isnan(second))
    return np.where(equal, 0.0, np.where(np.isnan(difference), np.inf, difference))


@dataclass
class Answers:
    """All outputs of one model."""

    outputs: dict[str, OutputDifference] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    """A value for each sample."""

    def add(self, right: Arrays, got: Arrays) -> None:
        for name, array in right.items():
            self.outputs.setdefault(name, OutputDifference()).add(array, got[name])

    def measure(self, name: str, metric: Metric, right: Arrays, got: Arrays, sample: str) -> None:
        """Ask the user's metric. Raises OpexecError where it fails, or gives no number."""
        try:
            value = float(metric(dict(got), dict(right)))
        except Exception as error:
            raise OpexecError(
                f"the metric {name} failed on {sample}: {type(error).__name__}: {error}; it is called with two dicts of arrays, the "
                "model's outputs and the right ones, and returns a number"
            ) from error
        self.metrics.setdefault(name, []).append(value)


def load_metric(text: str) -> tuple[str, Metric]:
    """The function that ``"file.py:function"`` names, and what to call it. Raises OpexecError."""
    place, colon, name = text.rpartition(":")
    path = os.path.abspath(os.path.expanduser(place))
    if not colon or not name.isidentifier() or not os.path.isfile(path):
        raise OpexecError(f"a metric is a function in a file, 'file.py:function'; got {text!r}")
    function = getattr(python_files.run(path, "the metric's"), name, None)
    if not callable(function):
        raise OpexecError(f"{path} has no function {name!r}")
    return name, function


def _is_number(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind in "biufc" or (
        array.dtype.names is None and wire.extension_name(array.dtype) is not None
    )
