"""Where the time of one call goes, from the clock readings that both sides make: Linux has one monotonic clock for all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..connection.timing import CallTimes


@dataclass(frozen=True)
class Step:
    """A part of a call, between two readings."""

    key: str
    """As `CallTimes.stages` calls it."""
    name: str
    first: str
    last: str
    side: str
    """``"caller"``, ``"worker"``, or ``"between"``: the way from one to the other."""
    meaning: str


STEPS = (
    Step(
        "copy_in",
        "copy in",
        "began",
        "sent",
        "caller",
        "checking the inputs and copying them into shared memory",
    ),
    Step(
        "wake_up",
        "wake-up",
        "sent",
        "taken",
        "between",
        "until the worker has the call, waking it if it slept",
    ),
    Step("bind", "bind", "taken", "started", "worker", "the worker finds its inputs in shared memory"),
    Step("model", "model", "started", "ended", "worker", "the model itself"),
    Step("copy_out", "copy out", "ended", "answered", "worker", "putting the outputs into shared memory"),
    Step(
        "reply",
        "return",
        "answered",
        "seen",
        "between",
        "until the caller has the answer, waking it if it slept",
    ),
    Step("arrays", "arrays", "seen", "returned", "caller", "making the caller's arrays of the outputs"),
)


@dataclass(frozen=True)
class Breakdown:
    """The mean seconds of each step, over the middle half of the calls by their whole time; so the steps add up to `total`."""

    calls: int
    total: float
    steps: dict[str, float]

    @classmethod
    def of(cls, calls: Sequence[CallTimes]) -> Breakdown:
        """Raises ValueError for no calls."""
        if not calls:
            raise ValueError("expected at least one timed call")
        whole = np.array([call.returned - call.began for call in calls])
        low, high = np.quantile(whole, [0.25, 0.75])
        middle = [call for call, total in zip(calls, whole) if low <= total <= high] or list(calls)
        stages = [call.stages for call in middle]
        steps = {step.key: float(np.mean([each[step.key] for each in stages])) / 1e9 for step in STEPS}
        return cls(len(calls), sum(steps.values()), steps)
