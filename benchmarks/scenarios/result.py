"""What a scenario found: everything that its table and its picture show, ready for JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.ratios import Spread

MET, AIM_MET, MUST_MET, NOT_MET = "met", "aim met", "must met", "NOT MET"
MINIMUM_ROUNDS = 9


@dataclass(frozen=True)
class Settings:
    """`rounds` of the scenario, each of about `seconds` for every side; `quick` shows the way and decides nothing."""

    rounds: int
    seconds: float
    quick: bool
    step: Callable[[str], None] = lambda text: None

    @classmethod
    def of(cls, quick: bool, step: Callable[[str], None]) -> Settings:
        return cls(3, 0.2, True, step) if quick else cls(MINIMUM_ROUNDS, 1.0, False, step)


@dataclass(frozen=True)
class Verdict:
    """A line of the goals, as text."""

    title: str
    must: str
    aim: str
    measured: str
    verdict: str

    @classmethod
    def at_least(cls, title: str, spread: Spread, must: float, aim: float, unit: str = "x") -> Verdict:
        """Of a figure that is better when it is larger; `spread` is over the rounds."""
        grade = AIM_MET if spread.median >= aim else MUST_MET if spread.median >= must else NOT_MET
        return cls(title, f"≥ {must:g} {unit}", f"≥ {aim:g} {unit}", f"{text(spread)} {unit}", grade)

    @classmethod
    def at_most(cls, title: str, spread: Spread, must: float, aim: float, unit: str) -> Verdict:
        """Of a figure that is better when it is smaller."""
        grade = AIM_MET if spread.median <= aim else MUST_MET if spread.median <= must else NOT_MET
        return cls(title, f"≤ {must:g} {unit}", f"≤ {aim:g} {unit}", f"{text(spread)} {unit}", grade)


@dataclass(frozen=True)
class Bar:
    """A bar of the picture, with the middle half of the rounds as its whisker; `group` picks its colour."""

    label: str
    group: str
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, label: str, group: str, spread: Spread) -> Bar:
        return cls(label, group, spread.median, spread.low, spread.high)


@dataclass(frozen=True)
class Found:
    """`axis` says what the bars measure; `log`: on a logarithmic axis. `rounds`: the figures behind the table, by what they are."""

    title: str
    question: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[Verdict] = ()
    bars: Sequence[Bar] = ()
    axis: str = ""
    log: bool = False
    notes: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    rounds: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Found:
        verdicts = [Verdict(**one) for one in data["verdicts"]]
        bars = [Bar(**one) for one in data["bars"]]
        return cls(**{**data, "verdicts": verdicts, "bars": bars})


def text(spread: Spread) -> str:
    """The median and the middle half of the rounds."""
    return f"{number(spread.median)} [{number(spread.low)} .. {number(spread.high)}]"


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
