"""What opexec is to reach, and whether it does: ratios against floors measured in the same round, never times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.contender import REGISTRY
from benchmarks.grid import BUSY, IDLE, SMALLEST, START, Case
from benchmarks.idle import IdleCpu
from benchmarks.ratios import Spread, percentiles
from benchmarks.rounds import AFTER_IDLE, REFERENCE, Measurement, Outcome
from benchmarks.workloads import HUNDRED_NBYTES, Workload

EQUAL = 1.05
"""Two figures count as equal within 5 %."""
IDLE_MUST_PERCENT = 0.2
IDLE_AIM_PERCENT = 0.005
"""The aim is none at all: what would be printed as 0.00 %."""
LOAD_MUST_MS = 150.0
TAIL = 4.0, 2.0
FASTER_THAN_SLEEPERS = 8.0, 15.0
FASTER_THAN_ALL = 3.0, 5.0
"""Must and aim."""
MET, AIM_MET, MUST_MET, NOT_MET, NOT_MEASURED = "met", "aim met", "must met", "NOT MET", "not measured"


@dataclass(frozen=True)
class Bound:
    """At most `must`, better at most `aim`, times the sum of `units`."""

    units: tuple[str, ...]
    must: float
    aim: float

    @property
    def name(self) -> str:
        joined = " + ".join(self.units)
        if len(self.units) == 2 and self.units[0] == self.units[1]:
            return f"2 {self.units[0]}"
        return f"({joined})" if len(self.units) > 1 else joined

    def ratio(self, measurement: Measurement) -> float | None:
        """p50 over the sum of the units' p50; None where a unit was not measured."""
        try:
            return measurement.p50 / sum(measurement.units[unit] for unit in self.units)
        except KeyError:
            return None


@dataclass(frozen=True)
class Goal:
    """A case with its bounds: met if one of them holds."""

    title: str
    case: Case
    bounds: tuple[Bound, ...]


@dataclass(frozen=True)
class Verdict:
    """A line of the verdict table, as text."""

    title: str
    must: str
    aim: str
    measured: str
    verdict: str


_TWO_IMAGES = (("6.9 MB", 6_912_000), ("64 MiB", 64 * 2**20))
GOALS: tuple[Goal, ...] = (
    Goal(
        "64 B in and out, busy caller",
        Case(SMALLEST, "opexec", BUSY),
        (Bound(("S",), 18, 10), Bound(("F",), 6, 3.5)),
    ),
    Goal("64 B after 5 ms idle", Case(SMALLEST, "opexec", IDLE), (Bound((AFTER_IDLE,), 2, 1.3),)),
    *(
        Goal(
            f"{size} input from {source}, tiny output",
            Case(Workload("tiny", nbytes), contender, BUSY),
            (Bound((REFERENCE,), 1.1, EQUAL),),
        )
        for size, nbytes in _TWO_IMAGES
        for contender, source in (
            ("opexec-empty", "`model.empty`"),
            ("opexec-slice", "a slice of `model.empty`"),
        )
    ),
    Goal(
        "6.9 MB numpy input (one copy), tiny output",
        Case(Workload("tiny", 6_912_000), "opexec", BUSY),
        (Bound(("M", REFERENCE), 1.2, 1.05),),
    ),
    Goal(
        "6.9 MB in and out, both copied",
        Case(Workload("echo", 6_912_000), "opexec", BUSY),
        (Bound(("M", "M"), 1.1, 1.05),),
    ),
    Goal(
        "100 float32 inputs of 10x5",
        Case(Workload("hundred", HUNDRED_NBYTES), "opexec", BUSY),
        (Bound(("S",), 200, 100), Bound(("F",), 90, 45)),
    ),
)


def judge(outcome: Outcome, idle: Iterable[IdleCpu]) -> list[Verdict]:
    """The verdict on every goal, in the order of the table."""
    return [
        *(_judge_goal(goal, outcome) for goal in GOALS),
        _judge_tail(outcome),
        _judge_fastest_peer(outcome, burning=False),
        _judge_fastest_peer(outcome, burning=True),
        _judge_peers(compare_peers(outcome)),
        _judge_idle(idle),
        _judge_load(outcome),
    ]


def ratios(measurements: Iterable[Measurement], bound: Bound) -> Spread | None:
    """The ratio of each round, summed up; None where no round has it."""
    found = [ratio for measurement in measurements if (ratio := bound.ratio(measurement)) is not None]
    return Spread.of(found) if found else None


def _judge_goal(goal: Goal, outcome: Outcome) -> Verdict:
    measurements = outcome.of(goal.case)
    figures = [(bound, spread) for bound in goal.bounds if (spread := ratios(measurements, bound))]
    return Verdict(
        goal.title,
        " or ".join(f"≤ {bound.must:g} {bound.name}" for bound in goal.bounds),
        " or ".join(f"≤ {bound.aim:g} {bound.name}" for bound in goal.bounds),
        "; ".join(f"{_number(spread)} {bound.name}" for bound, spread in figures) or "–",
        _grade([(spread.median, bound.must, bound.aim) for bound, spread in figures]),
    )


@dataclass(frozen=True)
class PeerComparison:
    """How many times as long as `peer` opexec takes: below 1, it is ahead."""

    case: Case
    peer: str
    ratio: Spread


def compare_peers(outcome: Outcome) -> list[PeerComparison]:
    """Every opexec case against every peer on the same workload in the same mode, round by round."""
    by_case: dict[Case, dict[int, Measurement]] = {}
    for measurement in outcome.measurements:
        by_case.setdefault(measurement.case, {})[measurement.round] = measurement
    found = []
    for ours, our_rounds in by_case.items():
        if REGISTRY[ours.contender].kind != "opexec":
            continue
        for theirs, their_rounds in by_case.items():
            if REGISTRY[theirs.contender].kind != "peer" or (theirs.workload, theirs.mode) != (
                ours.workload,
                ours.mode,
            ):
                continue
            shared = sorted(our_rounds.keys() & their_rounds.keys())
            if shared:
                values = [our_rounds[number].p50 / their_rounds[number].p50 for number in shared]
                found.append(PeerComparison(ours, theirs.contender, Spread.of(values)))
    return found


def _judge_peers(comparisons: Sequence[PeerComparison]) -> Verdict:
    title, must = "every size and case", "ahead of every peer"
    if not comparisons:
        return Verdict(title, must, "", "–", NOT_MEASURED)
    worst = max(comparisons, key=lambda comparison: comparison.ratio.median)
    behind = sum(comparison.ratio.median >= 1 for comparison in comparisons)
    ahead = f"ahead in {len(comparisons) - behind} of {len(comparisons)}"
    measured = f"{ahead}; closest: {_number(worst.ratio)} of {worst.peer} in {worst.case}"
    return Verdict(title, must, "", measured, NOT_MET if behind else MET)


def _judge_tail(outcome: Outcome) -> Verdict:
    """p99 against p50 of the same round, at the first goal's case."""
    found = [percentiles(measurement.samples) for measurement in outcome.of(GOALS[0].case)]
    title, must, aim = "64 B, busy caller: p99 over p50", f"≤ {TAIL[0]:g}", f"≤ {TAIL[1]:g}"
    if not found:
        return Verdict(title, must, aim, "–", NOT_MEASURED)
    spread = Spread.of([one["p99"] / one["p50"] for one in found])
    return Verdict(title, must, aim, _number(spread), _grade([(spread.median, *TAIL)]))


def _judge_fastest_peer(outcome: Outcome, *, burning: bool) -> Verdict:
    """How many times as long as opexec the fastest peer of each round takes; those that keep a core busy while idle count if `burning`."""
    bounds = FASTER_THAN_ALL if burning else FASTER_THAN_SLEEPERS
    which = "the fastest peer of all" if burning else "the fastest peer that leaves idle cores alone"
    title, must, aim = f"64 B, against {which}", f"≥ {bounds[0]:g} x", f"≥ {bounds[1]:g} x"
    ours = {measurement.round: measurement.p50 for measurement in outcome.of(GOALS[0].case)}
    fastest: dict[int, tuple[int, str]] = {}
    for measurement in outcome.measurements:
        case, entry = measurement.case, REGISTRY[measurement.case.contender]
        if entry.kind != "peer" or (case.workload, case.mode) != (SMALLEST, BUSY):
            continue
        if (burning or not entry.burns_core) and measurement.round in ours:
            found = measurement.p50, case.contender
            fastest[measurement.round] = min(found, fastest.get(measurement.round, found))
    if not fastest:
        return Verdict(title, must, aim, "–", NOT_MEASURED)
    spread = Spread.of([p50 / ours[number] for number, (p50, _) in fastest.items()])
    names = ", ".join(sorted({name for _, name in fastest.values()}))
    grade = _grade([(-spread.median, -bounds[0], -bounds[1])])
    return Verdict(title, must, aim, f"{_number(spread)} x ({names})", grade)


def _judge_idle(idle: Iterable[IdleCpu]) -> Verdict:
    ours = [figure for figure in idle if figure.contender == "opexec"]
    must, aim = f"under {IDLE_MUST_PERCENT:g} % of a core", "0"
    if not ours:
        return Verdict("worker idle", must, aim, "–", NOT_MEASURED)
    figure = ours[0]
    # The process clock sees what ticks of 10 ms miss; the worse of the two counts.
    used = max(figure.partner_percent, figure.partner_percent_by_clock)
    return Verdict(
        f"worker idle for {figure.seconds:.0f} s",
        must,
        aim,
        f"{figure.partner_percent:.2f} % in ticks, {figure.partner_percent_by_clock:.4f} % by its clock",
        _grade([(used, IDLE_MUST_PERCENT, IDLE_AIM_PERCENT)]),
    )


def _judge_load(outcome: Outcome) -> Verdict:
    title, must = "worker ready after `load`", f"B + {LOAD_MUST_MS:g} ms"
    extra = [
        (measurement.p50 - measurement.units["B"]) / 1e6
        for measurement in outcome.of(Case(SMALLEST, "opexec-load", START))
        if "B" in measurement.units
    ]
    if not extra:
        return Verdict(title, must, "", "–", NOT_MEASURED)
    spread = Spread.of(extra)
    measured = f"B + {spread.median:.0f} ms [{spread.low:.0f} .. {spread.high:.0f}]"
    return Verdict(title, must, "", measured, MET if spread.median <= LOAD_MUST_MS else NOT_MET)


def _grade(figures: Sequence[tuple[float, float, float]]) -> str:
    """Of (value, must, aim) each; one that holds is enough."""
    if not figures:
        return NOT_MEASURED
    if any(value <= aim for value, _, aim in figures):
        return AIM_MET
    return MUST_MET if any(value <= must for value, must, _ in figures) else NOT_MET


def _number(spread: Spread) -> str:
    return f"{spread.median:.3g} [{spread.low:.3g} .. {spread.high:.3g}]"
