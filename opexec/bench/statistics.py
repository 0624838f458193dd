"""What many times say: percentiles from an HDR histogram, and how sure a ratio is.

A round gives one number for each variant, such as its p50. Calls that follow each other are alike, for they meet the same disturbances;
rounds are further apart. So rounds are what is drawn from again (a bootstrap over blocks), and an interval is as wide as the
rounds differ. Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 8.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

#: Nanoseconds that a histogram tells apart, and how finely: three digits.
_LEAST, _MOST, _DIGITS = 1, 3_600_000_000_000, 3
_DRAWS = 2000
CONFIDENCE = 0.95
LEAST_ROUNDS = 5

Array = np.ndarray[Any, Any]


def histogram(nanoseconds: Array | None = None) -> HdrHistogram:
    """An HDR histogram of times: exact to three digits from 1 ns to 1 h. Longer times count as 1 h."""
    from hdrh.histogram import HdrHistogram  # only here: importing opexec.bench is to cost little

    made = HdrHistogram(_LEAST, _MOST, _DIGITS)
    if nanoseconds is not None:
        # Equal ones at once: recording costs microseconds, and clocks tick in steps.
        for value, count in zip(*np.unique(np.clip(nanoseconds, _LEAST, _MOST), return_counts=True)):
            made.record_value(int(value), int(count))
    return made


def _at(made: HdrHistogram, percentiles: Sequence[float]) -> list[float]:
    """Seconds at ascending percentiles, all in one go through the histogram."""
    found = made.get_percentile_to_value_dict(list(percentiles))
    return [found[percent] / 1e9 for percent in percentiles]


@dataclass(frozen=True)
class Latency:
    """Times of calls, in seconds; percentiles to three digits."""

    calls: int
    mean: float
    least: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    histogram: str
    """All of them, in nanoseconds: HdrHistogram's own encoding (V2, compressed, base64), which its tools read."""

    @classmethod
    def of(cls, nanoseconds: Array) -> Latency:
        """Raises ValueError where there are none."""
        if not len(nanoseconds):
            raise ValueError("expected at least one time")
        made = histogram(nanoseconds)
        p50, p90, p99, p999 = _at(made, (50.0, 90.0, 99.0, 99.9))
        return cls(
            calls=len(nanoseconds),
            mean=float(np.mean(nanoseconds)) / 1e9,
            least=float(np.min(nanoseconds)) / 1e9,
            p50=p50,
            p90=p90,
            p99=p99,
            p999=p999,
            max=float(np.max(nanoseconds)) / 1e9,
            histogram=made.encode().decode("ascii"),
        )

    def curve(self) -> list[tuple[float, float]]:
        """Percentile and seconds, in steps as fine as there are calls: what an HDR plot draws."""
        from hdrh.histogram import HdrHistogram

        made = HdrHistogram.decode(self.histogram)
        shares = [100 * step / 200 for step in range(198)]
        tail = 0.01
        while tail * self.calls >= 1:
            shares += [100 * (1 - tail * part) for part in (1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.14)]
            tail /= 10
        return list(zip(shares, _at(made, shares)))


@dataclass(frozen=True)
class Ratio:
    """How many times as much, with an interval that holds the true ratio with 95 % confidence.

    The interval is infinitely wide, from 0, where there are fewer than five rounds: it would hold the true ratio too seldom.
    """

    value: float
    low: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.low > 1 or self.high < 1


def paired(those: Sequence[float], base: Sequence[float], seed: int = 0) -> Ratio:
    """The median of the rounds' ratios, for what was measured in the same rounds; round n stands at the same place in both.

    Raises ValueError for different numbers of rounds, or none.
    """
    if len(those) != len(base) or not len(those):
        raise ValueError(f"expected as many rounds of both, at least one; got {len(those)} and {len(base)}")
    ratios = np.asarray(those, float) / np.asarray(base, float)
    return _interval(
        float(np.median(ratios)), _medians(ratios, seed) if len(ratios) >= LEAST_ROUNDS else None
    )


def unpaired(those: Sequence[float], base: Sequence[float], seed: int = 0) -> Ratio:
    """The ratio of the rounds' medians, for what was measured in two runs. Raises ValueError for no rounds."""
    if not len(those) or not len(base):
        raise ValueError("expected at least one round of each")
    above, below = np.asarray(those, float), np.asarray(base, float)
    drawn = None
    if min(len(above), len(below)) >= LEAST_ROUNDS:
        drawn = _medians(above, seed) / _medians(below, seed + 1)
    return _interval(float(np.median(above) / np.median(below)), drawn)


def _medians(values: Array, seed: int) -> Array:
    random = np.random.default_rng(seed)
    drawn = values[random.integers(0, len(values), (_DRAWS, len(values)))]
    return np.asarray(np.median(drawn, axis=1))


def _interval(value: float, drawn: Array | None) -> Ratio:
    if drawn is None:
        return Ratio(value, 0.0, float("inf"))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Ratio(value, float(low), float(high))
