"""What is measured: which contender on which workload in which mode, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchmarks.contender import REGISTRY
from benchmarks.sampling import Plan
from benchmarks.workloads import HUNDRED_NBYTES, SIZES, Workload

BUSY, IDLE, START = "busy", "idle", "start"
"""Modes: the caller calls again at once; it sleeps 5 ms before each call; a worker is started by each call."""
IDLE_PAUSE_NS = 5_000_000
SMALLEST = Workload("echo", 64)
QUICK_SIZES = SIZES[:3]
MINIMUM_ROUNDS = 9
HEAVY_ROUNDS = 3
"""Rounds of peers that take seconds to open, and are slower by orders of magnitude."""
IMAGE_NBYTES = 6_912_000
_MS = 1_000_000


@dataclass(frozen=True, order=True)
class Case:
    """One figure of the table."""

    workload: Workload
    contender: str
    mode: str

    def __str__(self) -> str:
        return f"{self.contender}/{self.workload}/{self.mode}"


@dataclass(frozen=True)
class Settings:
    """How thorough a run is: rounds, and in each round the plan of a case and of a floor in each mode."""

    rounds: int
    sizes: tuple[int, ...]
    case_plans: dict[str, Plan]
    floor_plans: dict[str, Plan]
    idle_seconds: float

    def rounds_of(self, case: Case) -> int:
        """How many rounds measure `case`: the first ones."""
        return min(self.rounds, HEAVY_ROUNDS) if REGISTRY[case.contender].heavy else self.rounds


def settings(*, quick: bool = False, rounds: int | None = None) -> Settings:
    """The settings of a full run, or of a quick one that shows the way but decides nothing."""
    scale = 5 if quick else 1
    idle = {"pause_ns": IDLE_PAUSE_NS, "warm_least": 2}
    once = {"warm_ns": 0, "warm_least": 0, "least": 1, "most": 1}
    return Settings(
        rounds=rounds or (3 if quick else MINIMUM_ROUNDS),
        sizes=QUICK_SIZES if quick else SIZES,
        case_plans={
            BUSY: Plan(120 * _MS // scale, warm_ns=20 * _MS // scale),
            IDLE: Plan(250 * _MS // scale, **idle),
            START: Plan(0, **once),
        },
        floor_plans={
            BUSY: Plan(15 * _MS // scale, most=2_000),
            IDLE: Plan(120 * _MS // scale, **idle),
            START: Plan(0, **once),
        },
        idle_seconds=2 if quick else 10,
    )


def cases(sizes: Sequence[int], patterns: Sequence[str] = (), *, everything: bool = False) -> list[Case]:
    """The cases for these sizes: opexec and the calls in process on every workload in both modes, peers where it tells most.

    Heavy peers: 64 B in and out, and an image in. Others: these, an image in and out, 100 small inputs, and 64 B after idling; with
    `everything` all that opexec is measured on. With patterns, of all cases those whose name `contender/model/bytes/mode` matches one
    of them.
    """
    everything = everything or bool(patterns)
    workloads = [Workload(model, nbytes) for model in ("tiny", "echo") for nbytes in sizes]
    hundred = Workload("hundred", HUNDRED_NBYTES)
    workloads.append(hundred)
    image = IMAGE_NBYTES if IMAGE_NBYTES in sizes else sizes[-1]
    for_heavy = [(SMALLEST, BUSY), (Workload("tiny", image), BUSY)]
    for_peers = [*for_heavy, (SMALLEST, IDLE), (Workload("echo", image), BUSY), (hundred, BUSY)]
    found = [Case(SMALLEST, "opexec-load", START)]
    for workload in workloads:
        for contender in _contenders(workload):
            entry = REGISTRY[contender]
            for mode in (BUSY,) if contender == "spin-copy" else (BUSY, IDLE):
                if entry.heavy and not patterns:
                    wanted = (workload, mode) in for_heavy
                else:
                    wanted = everything or entry.kind != "peer" or (workload, mode) in for_peers
                if wanted:
                    found.append(Case(workload, contender, mode))
    if patterns:
        found = [case for case in found if any(fnmatchcase(str(case), pattern) for pattern in patterns)]
    return found


def _contenders(workload: Workload) -> list[str]:
    """Floors are measured beside each case, not as cases."""
    left_out = {"opexec-load"}
    if workload != SMALLEST:
        left_out.add("spin-copy")
    if workload.model == "hundred":
        left_out.add("opexec-slice")
    return [name for name, entry in REGISTRY.items() if entry.kind != "floor" and name not in left_out]
