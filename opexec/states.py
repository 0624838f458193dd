"""The states of a model's workers (`WorkerInfo.state`), in words for people: the worst first, so that none hides behind another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_WORST_FIRST = ("failed", "stopped", "restarting", "starting", "loading", "busy", "ready", "draining")


def badness(state: str) -> int:
    """The lower, the worse; one that is not known here is the worst."""
    return _WORST_FIRST.index(state) if state in _WORST_FIRST else -1


def summary(states: Iterable[str]) -> str:
    """That of the worker, or of how many replicas: ``"ready"``, ``"1 failed, 2 ready"``."""
    counts = Counter(states)
    if counts.total() == 1:
        return next(iter(counts))
    return ", ".join(f"{counts[state]} {state}" for state in sorted(counts, key=badness))
