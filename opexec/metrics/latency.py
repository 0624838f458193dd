"""Histograms of how long the stages of calls take.

Calls are timed one in several (`timing.Sampler`) and leave their times in a deque. Whoever reads the histograms sorts these in first, all
at once. A timed call stands for those that were left out before it, and counts as many times: so that short calls, which are timed more
rarely, do not look rare.

How long calls waited before a worker was given them is no part of that: each that waited says so, and one that did not does nothing.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..connection.timing import Sampler

#: What is timed of a call, in the order in which it happens; the sum of all is ``"total"``.
STAGES = ("copy_in", "wake_up", "bind", "model", "copy_out", "reply", "arrays", "total")

#: What comes before, and is no part of ``"total"``: the call waits for room in `max_pending`, or for the rest of its batch.
QUEUE = "queue"

#: Waits that lie there until somebody sorts them in: whoever reads the histograms, or brings one more.
_WAITS_KEPT = 4096

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

    `count` calls are behind it: those that were timed, each with those it stands for; for ``"queue"``, those that waited. The percentiles are at most 2 % too high; `max` is
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
    """The histograms of one model. Any thread may read them; none of it runs in a call, but for one that has waited."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._waits: deque[int] = deque()
        self._lock = threading.Lock()
        self._stages: dict[str, _Histogram] = {}
        _all.add(self)

    def add_wait(self, *waits: int) -> None:
        """So many nanoseconds calls waited each until they were handed to a worker."""
        self._waits.extend(waits)
        # Nobody waits for the lock here: whoever has it may be this very thread, interrupted.
        if len(self._waits) >= _WAITS_KEPT and self._lock.acquire(blocking=False):
            try:
                self._fold_waits()
            finally:
                self._lock.release()

    def summaries(self) -> Mapping[str, LatencySummary]:
        """By stage; empty as long as no call was timed."""
        with self._lock:
            self._fold()
            return {stage: one.summary() for stage, one in self._in_order()}

    def buckets(self) -> Mapping[str, Buckets]:
        """By stage; empty as long as no call was timed."""
        with self._lock:
            self._fold()
            return {stage: one.buckets() for stage, one in self._in_order()}

    def _in_order(self) -> list[tuple[str, _Histogram]]:
        return [(stage, self._stages[stage]) for stage in (QUEUE, *STAGES) if stage in self._stages]

    def _fold(self) -> None:
        """Sort in what has come since."""
        self._fold_waits()
        self._fold_times()

    def _fold_waits(self) -> None:
        new = _taken(self._waits)
        if new:
            spans = np.array(new, np.int64)
            self._of(QUEUE).add(spans, np.ones(len(spans), np.int64))

    def _fold_times(self) -> None:
        new = _taken(self._sampler.times)
        if not new:
            return
        weights = np.array([stands_for for _, stands_for in new], np.int64)
        moments = np.array([times for times, _ in new], np.int64)
        spans = np.column_stack([np.diff(moments, axis=1), moments[:, -1] - moments[:, 0]])
        for number, stage in enumerate(STAGES):
            self._of(stage).add(spans[:, number], weights)

    def _of(self, stage: str) -> _Histogram:
        found = self._stages.get(stage)
        if found is None:
            found = self._stages[stage] = _Histogram()
        return found


class _Histogram:
    """Of one stage, in nanoseconds."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES) + 1, np.int64)
        self._sum = 0
        self._longest = 0

    def add(self, spans: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> None:
        """So many calls took that long."""
        np.add.at(self._counts, np.searchsorted(_EDGES, spans), weights)
        self._sum += int((spans * weights).sum())
        self._longest = max(self._longest, int(spans.max()))

    def buckets(self) -> Buckets:
        up_to = self._counts.cumsum()
        return Buckets(tuple(up_to[_SHOWN].tolist()), int(up_to[-1]), self._sum / 1e9)

    def summary(self) -> LatencySummary:
        up_to = self._counts.cumsum()
        count, longest = int(up_to[-1]), self._longest

        def percentile(share: float) -> float:
            place = int(np.searchsorted(up_to, max(math.ceil(share * count), 1)))
            bound = float(_EDGES[place]) if place < len(_EDGES) else math.inf
            return min(bound, longest) / 1e9

        return LatencySummary(
            count=count,
            mean=self._sum / count / 1e9,
            p50=percentile(0.5),
            p90=percentile(0.9),
            p99=percentile(0.99),
            p999=percentile(0.999),
            max=longest / 1e9,
        )


_Kept = TypeVar("_Kept")


def _taken(kept: deque[_Kept]) -> list[_Kept]:
    """Everything that is there, to which others may add meanwhile."""
    new = []
    try:
        while True:
            new.append(kept.popleft())
    except IndexError:
        return new


def bounds_text(bounds: Sequence[float]) -> list[str]:
    """As Prometheus writes them, with the one that is above all."""
    return [*map(repr, bounds), "+Inf"]


_all: weakref.WeakSet[Latency] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Another thread may have held a lock: it is not there."""
    for latency in list(_all):
        latency._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
