"""The order of measuring: round after round, and in a round each case right after fresh measurements of the floors.

A round opens everything anew, so that how processes and memory happened to be laid out is part of the spread. It takes
workloads, and contenders within a workload, in an order drawn for that round, so that nobody has a favourite neighbour.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from benchmarks.contender import REGISTRY, Unavailable, Unsupported
from benchmarks.driver_process import ContenderFailed
from benchmarks.grid import BUSY, IDLE, SMALLEST, START, Case, Settings
from benchmarks.ratios import percentiles
from benchmarks.sampling import Plan, Samples
from benchmarks.workloads import Workload

_T = TypeVar("_T", str, Workload)

REFERENCE = "R"
"""The unit that is opexec itself: 64 B in and out, from plain numpy, busy caller."""
AFTER_IDLE = "E idle"


class Backend(Protocol):
    """Opens, measures and closes contenders; a `seat` is a process that one of them has to itself."""

    def open(self, seat: str, contender: str, workload: Workload) -> dict[str, str]: ...
    def measure(self, seat: str, plan: Plan) -> Samples: ...
    def close(self, seat: str) -> None: ...


@dataclass(frozen=True)
class Measurement:
    """One case in one round: nanoseconds of each call, and of the p50 of each floor taken right before."""

    case: Case
    round: int
    samples: Samples
    units: dict[str, int]

    @property
    def p50(self) -> int:
        return percentiles(self.samples)["p50"]


@dataclass
class Outcome:
    """Everything that a run found. `failures` and `facts` are by contender, `unavailable` too, or by ``contender/workload``."""

    measurements: list[Measurement] = field(default_factory=list)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    rounds: int = 0

    def of(self, case: Case) -> list[Measurement]:
        return [measurement for measurement in self.measurements if measurement.case == case]


def units_of(case: Case) -> tuple[str, ...]:
    """The floors that are measured right before `case`, in this order."""
    if case.mode == START:
        return ("B",)
    units: tuple[str, ...] = ("S", "F", "E", "M")
    if case.mode == IDLE:
        units += (AFTER_IDLE,)
    if REGISTRY[case.contender].kind == "opexec":
        units += (REFERENCE,)
    return units


class Rounds:
    """Measures `cases` on `backend`; `step` is called with the name of each case before it is measured."""

    def __init__(
        self,
        cases: Sequence[Case],
        settings: Settings,
        backend: Backend,
        *,
        seed: int = 0,
        step: Callable[[int, Case], None] = lambda number, case: None,
    ) -> None:
        self.outcome = Outcome()
        self._cases = cases
        self._settings = settings
        self._backend = backend
        self._random = random.Random(seed)
        self._step = step

    def run(self) -> Outcome:
        """All rounds. After an exception, Ctrl-C included, `outcome` holds the rounds that were complete."""
        outcome = self.outcome
        try:
            for number in range(self._settings.rounds):
                self._round(number)
                outcome.rounds = number + 1
        finally:
            outcome.measurements = [m for m in outcome.measurements if m.round < outcome.rounds]
        return outcome

    def _round(self, number: int) -> None:
        cases = [case for case in self._cases if number < self._settings.rounds_of(case)]
        units = {unit for case in cases for unit in units_of(case)}
        standing = {unit for unit in units & {"S", "F", "E", "B"} if self._open(unit, unit, SMALLEST)}
        if REFERENCE in units and self._open(REFERENCE, "opexec", SMALLEST):
            standing.add(REFERENCE)
        for workload in self._shuffled({case.workload for case in cases}):
            here = [case for case in cases if case.workload == workload]
            copying = "M" in units and self._open("M", "M", workload)
            ready = standing | {"M"} if copying else set(standing)
            for contender in self._shuffled({case.contender for case in here}):
                self._measure(number, [case for case in here if case.contender == contender], ready)
            standing &= ready
            if "M" in ready:
                self._close("M")
        for seat in sorted(standing):
            self._close(seat)

    def _measure(self, number: int, cases: Sequence[Case], ready: set[str]) -> None:
        """The cases of one contender on one workload, each right after its floors."""
        contender, workload = cases[0].contender, cases[0].workload
        opened = self._open(contender, contender, workload)
        for case in cases:
            self._step(number, case)
            if not opened:
                continue
            units = self._floors(case, ready)
            try:
                samples = self._backend.measure(contender, self._settings.case_plans[case.mode])
            except ContenderFailed as failure:
                self.outcome.failures[contender] = str(failure)
                opened = False
            else:
                self.outcome.measurements.append(Measurement(case, number, samples, units))
        if opened:
            self._close(contender)

    def _floors(self, case: Case, ready: set[str]) -> dict[str, int]:
        """The p50 of each floor of `case`; one that fails is taken out of `ready`."""
        units: dict[str, int] = {}
        for unit in units_of(case):
            seat = unit.split()[0]
            if seat not in ready:
                continue
            mode = {"B": START, AFTER_IDLE: IDLE}.get(unit, BUSY)
            try:
                samples = self._backend.measure(seat, self._settings.floor_plans[mode])
            except ContenderFailed as failure:
                self.outcome.failures[seat] = str(failure)
                ready.discard(seat)
            else:
                units[unit] = percentiles(samples)["p50"]
        return units

    def _open(self, seat: str, contender: str, workload: Workload) -> bool:
        unsupported = f"{contender}/{workload}"
        if contender in self.outcome.failures or {contender, unsupported} & self.outcome.unavailable.keys():
            return False
        try:
            self.outcome.facts.setdefault(contender, {}).update(self._backend.open(seat, contender, workload))
        except Unavailable as reason:
            self.outcome.unavailable[contender] = str(reason)
            return False
        except Unsupported as reason:
            self.outcome.unavailable[unsupported] = str(reason)
            return False
        except ContenderFailed as failure:
            self.outcome.failures[contender] = str(failure)
            return False
        return True

    def _close(self, seat: str) -> None:
        try:
            self._backend.close(seat)
        except ContenderFailed as failure:
            self.outcome.failures[seat] = str(failure)

    def _shuffled(self, items: Iterable[_T]) -> list[_T]:
        ordered = sorted(items)  # so that the seed alone decides
        self._random.shuffle(ordered)
        return ordered
