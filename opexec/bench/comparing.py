"""Two reports of different times: what changed, and whether that is more than noise.

Nothing was interleaved here, so an interval over rounds is not enough: a machine may be slower as a whole today. Each round has the
pace of a fixed piece of Python before it. A variant is slower, or quicker, only where the interval of the ratio leaves out 1 by a
margin of 3 %, on the same side with the latencies as they are and divided by the machine's pace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .report import Report, Result, Round
from .statistics import Ratio, unpaired

#: Between two runs, what is nearer to 1 than this is noise in any case.
MARGIN = 0.03

SLOWER, QUICKER, NOISE = "slower", "quicker", "noise"


@dataclass(frozen=True)
class Change:
    """One variant in two reports; new figures as multiples of the old ones."""

    label: str
    old: Result
    new: Result
    p50: Ratio
    p99: Ratio
    throughput: Ratio
    at_equal_pace: Ratio
    """`p50`, with each round's divided by the machine's pace in that round."""
    verdict: str
    """``"slower"``, ``"quicker"`` or ``"noise"``, by the p50."""

    def slower_than(self, factor: float) -> bool:
        """Whether it is slower, beyond noise, and by that factor at least."""
        return self.verdict == SLOWER and self.p50.value >= factor


@dataclass(frozen=True)
class Changes:
    changes: tuple[Change, ...]
    only_old: tuple[str, ...]
    """Variants of one report alone, by label, and those that failed in the other one."""
    only_new: tuple[str, ...]
    pace: float
    """How many times as long as then the machine takes for the same piece of Python now."""
    other_machine: tuple[str, ...]
    """Facts of the machine that differ, such as the processor: then the figures say little about the models."""


def compare(old: Report, new: Report) -> Changes:
    """Variants are the same where their axes (`Result.axes`) and their inputs' dtypes and shapes are.

    Raises ValueError where one report was measured in an open loop and the other in a closed one, at another rate, or with inputs elsewhere.
    """
    for name in ("rate", "shared"):
        before, now = getattr(old.settings, name), getattr(new.settings, name)
        if before != now:
            raise ValueError(f"the reports were measured differently: {name} was {before!r} and is {now!r}")
    earlier = {_key(result): result for result in old.results if result.rounds and result.error is None}
    later = {_key(result): result for result in new.results if result.rounds and result.error is None}
    return Changes(
        changes=tuple(_change(earlier[key], result) for key, result in later.items() if key in earlier),
        only_old=tuple(result.label for key, result in earlier.items() if key not in later),
        only_new=tuple(result.label for key, result in later.items() if key not in earlier),
        pace=_pace(later.values()) / _pace(earlier.values()) if earlier and later else 1.0,
        other_machine=tuple(
            f"{name}: {old.machine.get(name)} then, {new.machine.get(name)} now"
            for name in ("cpu", "cores_usable", "kernel", "python")
            if old.machine.get(name) != new.machine.get(name)
        ),
    )


def as_dict(changes: Changes) -> dict[str, Any]:
    """Plain data for JSON: of each change the label, the verdict and the ratios; not the reports again."""
    ratios = ("p50", "p99", "throughput", "at_equal_pace")
    return {
        "changes": [
            {
                "label": each.label,
                "verdict": each.verdict,
                **{name: dataclasses.asdict(getattr(each, name)) for name in ratios},
            }
            for each in changes.changes
        ],
        "only_old": list(changes.only_old),
        "only_new": list(changes.only_new),
        "pace": changes.pace,
        "other_machine": list(changes.other_machine),
    }


def _key(result: Result) -> tuple[str, ...]:
    return tuple(f"{name}={result.axes[name]!r}" for name in sorted(result.axes)) + tuple(
        f"{name}: {text}" for name, text in sorted(result.inputs.items())
    )


def _change(old: Result, new: Result) -> Change:
    p50 = unpaired([each.p50 for each in new.rounds], [each.p50 for each in old.rounds])
    at_equal_pace = unpaired(_paced(new.rounds), _paced(old.rounds))
    return Change(
        label=new.label,
        old=old,
        new=new,
        p50=p50,
        p99=unpaired([each.p99 for each in new.rounds], [each.p99 for each in old.rounds]),
        throughput=unpaired(
            [each.throughput for each in new.rounds], [each.throughput for each in old.rounds]
        ),
        at_equal_pace=at_equal_pace,
        verdict=_verdict(p50, at_equal_pace),
    )


def _verdict(*ratios: Ratio) -> str:
    if all(ratio.low > 1 + MARGIN for ratio in ratios):
        return SLOWER
    if all(ratio.high < 1 / (1 + MARGIN) for ratio in ratios):
        return QUICKER
    return NOISE


def _paced(rounds: Sequence[Round]) -> list[float]:
    return [each.p50 / each.pace for each in rounds]


def _pace(results: Iterable[Result]) -> float:
    return float(np.median([each.pace for result in results for each in result.rounds]))
