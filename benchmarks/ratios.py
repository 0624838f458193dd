"""Percentiles of samples, and the median and spread of ratios over rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def percentiles(samples: npt.NDArray[np.int64]) -> dict[str, int]:
    """Percentiles by nearest rank: the smallest sample that is not exceeded by at least that share of all samples.

    So each is a sample that was really taken, and a p99.9 of fewer than 1,000 samples is their maximum.
    """
    if not len(samples):
        raise ValueError("expected at least one sample, got none")
    ordered = np.sort(samples)
    return {name: int(ordered[math.ceil(share * len(ordered)) - 1]) for name, share in PERCENTILES.items()}


@dataclass(frozen=True)
class Spread:
    """What came out over the rounds: median, middle half (`low` to `high`, interpolated linearly), and extremes."""

    median: float
    low: float
    high: float
    minimum: float
    maximum: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            raise ValueError("expected the values of at least one round, got none")
        low, median, high = (float(q) for q in np.percentile(values, [25, 50, 75]))
        return cls(median, low, high, float(min(values)), float(max(values)), len(values))
