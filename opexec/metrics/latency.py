"""Histograms of how long the stages of calls take.

Calls are timed one in several (`timing.Sampler`) and leave their times in a deque. Whoever reads the histograms sorts these in first, all
at once. A timed call stands for those that were left out before it, and counts as many times: so that short calls, which are timed more
rarely, do not look rare.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..timing import CallTimes, Sampler, left_out_after

#: What is timed of a call, in the order in which it happens; the sum of all is ``"total"``.
STAGES = ("copy_in", "wake_up", "bind", "model", "copy_out", "reply", "arrays", "total")

#: Upper bounds of the buckets that are shown, in seconds.
BOUNDS = tuple(float(f"{digit}e{power}") for power in range(-6, 2) for digit in (1, 2.5, 5))

# Buckets inside, by their upper bounds in nanoseconds: from 100 ns to 1000 s, 120 a decade, so a percentile is at most 2 % too high.
_FINE = 120
_EDGES = np.union1d(
    np.array([round(bound * 1e9) for bound in BOUNDS], float), np.geomspace(1e2, 1e12, 10 * _FINE + 1)
)
_SHOWN = np.searchsorted(_EDGES, [round(bound * 1e9) for bound in BOUNDS])


@dataclass(frozen=True)
class LatencySummary:
    """How long one stage took, in seconds, since the model was loaded.

    `count` calls are behind it: those that were timed, each with those it stands for. The percentiles are at most 2 % too high; `max` is
    the longest that was timed.
    """

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True)
class Buckets:
    """One stage for Prometheus: how many calls took up to each bound (`BOUNDS`), how many there were, and the sum of their seconds."""

    up_to: tuple[int, ...]
    count: int
    seconds: float


class Latency:
    """The histograms of one model. Any thread may read them; none of it runs in a call."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._lock = threading.Lock()
        self._before: CallTimes | None = None
        self._counts: np.ndarray[Any, Any] | None = None
        self._sums = np.zeros(len(STAGES), np.int64)
        self._longest = np.zeros(len(STAGES), np.int64)
        _all.add(self)

    def summaries(self) -> Mapping[str, LatencySummary]:
        """By stage; empty as long as no call was timed."""
        with self._lock:
            self._fold()
            if self._counts is None:
                return {}
            return {stage: self._summary(number) for number, stage in enumerate(STAGES)}

    def buckets(self) -> Mapping[str, Buckets]:
        """By stage; empty as long as no call was timed."""
        with self._lock:
            self._fold()
            if self._counts is None:
                return {}
            up_to = self._counts.cumsum(axis=1)
            return {
                stage: Buckets(
                    tuple(up_to[number, _SHOWN].tolist()),
                    int(up_to[number, -1]),
                    int(self._sums[number]) / 1e9,
                )
                for number, stage in enumerate(STAGES)
            }

    def _fold(self) -> None:
        """Sort in what has come since."""
        times, new = self._sampler.times, []
        try:
            while True:
                new.append(times.popleft())
        except IndexError:
            pass
        if not new:
            return
        before = [self._before, *new[:-1]]
        weights = np.array([1 if one is None else 1 + left_out_after(one) for one in before], np.int64)
        self._before = new[-1]
        moments = np.array(new, np.int64)
        spans = np.column_stack([np.diff(moments, axis=1), moments[:, -1] - moments[:, 0]])
        places = np.searchsorted(_EDGES, spans)
        if self._counts is None:
            self._counts = np.zeros((len(STAGES), len(_EDGES) + 1), np.int64)
        for number in range(len(STAGES)):
            np.add.at(self._counts[number], places[:, number], weights)
        self._sums += (spans * weights[:, None]).sum(axis=0)
        np.maximum(self._longest, spans.max(axis=0), out=self._longest)

    def _summary(self, number: int) -> LatencySummary:
        assert self._counts is not None
        up_to = self._counts[number].cumsum()
        count, longest = int(up_to[-1]), int(self._longest[number])

        def percentile(share: float) -> float:
            place = int(np.searchsorted(up_to, max(math.ceil(share * count), 1)))
            bound = float(_EDGES[place]) if place < len(_EDGES) else math.inf
            return min(bound, longest) / 1e9

        return LatencySummary(
            count=count,
            mean=int(self._sums[number]) / count / 1e9,
            p50=percentile(0.5),
            p90=percentile(0.9),
            p99=percentile(0.99),
            p999=percentile(0.999),
            max=longest / 1e9,
        )


def bounds_text(bounds: Sequence[float]) -> list[str]:
    """As Prometheus writes them, with the one that is above all."""
    return [*map(repr, bounds), "+Inf"]


_all: weakref.WeakSet[Latency] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Another thread may have held a lock: it is not there."""
    for latency in list(_all):
        latency._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
