"""The two calls that Neuropod's authors measured: an image of 1200x1920x3 bytes in, and 100 small inputs; with a tiny output both."""

from __future__ import annotations

from benchmarks import grid
from benchmarks.contender import REGISTRY, Options
from benchmarks.driver_process import Drivers
from benchmarks.grid import BUSY, IMAGE_NBYTES, Case
from benchmarks.latency import another_version
from benchmarks.ratios import Spread
from benchmarks.rounds import Measurement, Rounds
from benchmarks.scenarios.result import Bar, Found, Settings, text
from benchmarks.workloads import HUNDRED_NBYTES, Workload

IMAGE, HUNDRED = Workload("tiny", IMAGE_NBYTES), Workload("hundred", HUNDRED_NBYTES)
CONTENDERS = (
    "plain",
    "in-process",
    "opexec-empty",
    "opexec",
    "pipe-shm",
    "pipe-bytes",
    "zmq",
    "iceoryx2",
    "iceoryx2-events",
    "pipe",
    "executor",
)


def measure(settings: Settings) -> Found:
    cases = [Case(workload, name, BUSY) for workload in (IMAGE, HUNDRED) for name in CONTENDERS]
    plans = grid.settings(quick=settings.quick, rounds=settings.rounds)
    with Drivers(Options(another_version())) as drivers:
        outcome = Rounds(
            cases,
            plans,
            drivers,
            step=lambda number, case: settings.step(f"neuropod: round {number + 1}, {case}"),
        ).run()
    rows, bars, kept = [], [], {}
    for name in CONTENDERS:
        cells = []
        for workload in (IMAGE, HUNDRED):
            found = outcome.of(Case(workload, name, BUSY))
            kept[f"{name}/{workload}, µs"] = [each.p50 / 1e3 for each in found]
            cells.append(_over_plain(found, outcome.of(Case(workload, "plain", BUSY))))
            cells.insert(len(cells) - 1, text(Spread.of(kept[f"{name}/{workload}, µs"])) if found else "–")
            if workload == IMAGE and found:
                bars.append(
                    Bar.of(
                        REGISTRY[name].title,
                        REGISTRY[name].kind,
                        Spread.of(kept[f"{name}/{workload}, µs"]),
                    )
                )
        rows.append((REGISTRY[name].title, *cells))
    problems = {**outcome.unavailable, **outcome.failures}
    return Found(
        title="Neuropod's two calls",
        question="What does a call of a model in another process take, and how much is that over the plain call?",
        heads=(
            "",
            "6.9 MB image in: p50, µs",
            "over the plain call, µs",
            "100 inputs of 10x5: p50, µs",
            "over the plain call, µs",
        ),
        rows=rows,
        bars=bars,
        axis="6.9 MB in, tiny output: p50, µs",
        log=True,
        notes=[f"{name} was not measured: {why}" for name, why in problems.items()],
        rounds=kept,
    )


def _over_plain(found: list[Measurement], plain: list[Measurement]) -> str:
    base = {each.round: each.p50 for each in plain}
    over = [(each.p50 - base[each.round]) / 1e3 for each in found if each.round in base]
    return text(Spread.of(over)) if over else "–"
