"""A run written down: JSON with everything, Markdown to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks import goals
from benchmarks.contender import REGISTRY
from benchmarks.grid import BUSY, IDLE, MINIMUM_ROUNDS, START, Case, Settings
from benchmarks.idle import IdleCpu
from benchmarks.ratios import Spread, percentiles
from benchmarks.rounds import AFTER_IDLE, REFERENCE, Outcome
from benchmarks.workloads import Workload

SCHEMA = 1
_MODE_TITLES = {BUSY: "busy caller", IDLE: "after 5 ms idle", START: "start"}
_MODEL_TITLES = {"tiny": "tiny output", "echo": "equal output", "hundred": "100 inputs of 10x5, tiny output"}
_UNIT_TITLES = {
    "S": REGISTRY["S"].title,
    "F": REGISTRY["F"].title,
    "E": REGISTRY["E"].title,
    AFTER_IDLE: REGISTRY["E"].title + ", after 5 ms idle",
    REFERENCE: "R: opexec, 64 B in and out, from numpy",
    "B": REGISTRY["B"].title,
}
_UNIT_NOTES = {
    "S": "two Python processes on a core each pass a number to and fro, looking at a word in shared memory without pause",
    "F": "as S, with 64 B copied in, answered with a copy, and copied out; each side looks 20 times, then looks and "
    "yields for about 50 µs, then blocks; cached views, no checks",
    "E": "two Python processes, unpinned, ring each other's eventfd and block on their own",
    AFTER_IDLE: "the same, the caller having slept 5 ms before each",
    REFERENCE: "`Model.infer` with specs, busy caller",
    "B": "the worker's interpreter started with `-I`, until numpy is imported",
    "M": "into warm shared memory",
}
_METHOD = """Every contender lives in a process of its own and is opened anew in every round, one answer being verified. In a
round, workloads and contenders come in an order drawn for that round; right before each case its floors are measured. Between
measurements all sides are parked and use no processor. Each call is timed by itself with `perf_counter_ns`, after calls that do
not count; the cost of timing an empty call is taken off. The garbage collector is off on both sides. Peers may give
results that last until the next call only; those of opexec last as long as they are held. Tiny output is the last element of the
input, equal output the input itself. Busy: the caller calls again at once. After idle: it sleeps 5 ms before each call."""


@dataclass(frozen=True)
class Run:
    """A run and everything said about it."""

    command: str
    date: str
    machine: dict[str, Any]
    settings: Settings
    outcome: Outcome
    idle: Sequence[IdleCpu]

    @property
    def cases(self) -> list[Case]:
        """Those that were measured, in order of first measurement within workload and registry."""
        order = list(REGISTRY)
        found = {measurement.case for measurement in self.outcome.measurements}
        return sorted(found, key=lambda case: (case.workload, order.index(case.contender), case.mode))

    @property
    def decides(self) -> bool:
        """Whether it had rounds enough for its verdicts to count."""
        return self.outcome.rounds >= MINIMUM_ROUNDS


@dataclass(frozen=True)
class Figures:
    """A case: percentiles in nanoseconds over the samples of all rounds, the rounds' p50s, their ratios by unit."""

    samples: int
    percentiles: dict[str, int]
    p50: Spread
    ratios: dict[str, Spread]


def figures(run: Run, case: Case) -> Figures:
    """Sum up a measured case."""
    measurements = run.outcome.of(case)
    together = np.concatenate([measurement.samples for measurement in measurements])
    units = sorted({unit for measurement in measurements for unit in measurement.units})
    return Figures(
        len(together),
        percentiles(together),
        Spread.of([measurement.p50 for measurement in measurements]),
        {
            unit: spread
            for unit in units
            if (spread := goals.ratios(measurements, goals.Bound((unit,), 0, 0)))
        },
    )


def unit_figures(run: Run) -> dict[str, Spread]:
    """The p50 of each floor over all the times it was measured; M is left out, as it differs by size."""
    values: dict[str, list[float]] = {}
    for measurement in run.outcome.measurements:
        for unit, p50 in measurement.units.items():
            values.setdefault(unit, []).append(p50)
    return {unit: Spread.of(values[unit]) for unit in _UNIT_TITLES if unit in values}


def copy_figures(run: Run) -> dict[Workload, Spread]:
    """M, the p50 of copying all inputs of a workload."""
    values: dict[Workload, list[float]] = {}
    for measurement in run.outcome.measurements:
        if "M" in measurement.units:
            values.setdefault(measurement.case.workload, []).append(measurement.units["M"])
    return {workload: Spread.of(found) for workload, found in sorted(values.items())}


def to_json(run: Run) -> dict[str, Any]:
    """Everything but the single samples, ready for `json.dump`; times in nanoseconds."""
    outcome = run.outcome
    return {
        "schema": SCHEMA,
        "command": run.command,
        "date": run.date,
        "rounds": outcome.rounds,
        "machine": run.machine,
        "settings": asdict(run.settings),
        "verdicts": [asdict(verdict) for verdict in goals.judge(outcome, run.idle)],
        "floors_p50_ns": {unit: asdict(spread) for unit, spread in unit_figures(run).items()},
        "copy_p50_ns": {str(workload): asdict(spread) for workload, spread in copy_figures(run).items()},
        "contenders": {
            name: {
                "title": entry.title,
                "kind": entry.kind,
                "facts": outcome.facts.get(name, {}),
                "unavailable": outcome.unavailable.get(name),
                "failure": outcome.failures.get(name),
            }
            for name, entry in REGISTRY.items()
        },
        "cases": [_case_json(run, case) for case in run.cases],
        "peers": [
            {"case": str(found.case), "peer": found.peer, "ratio": asdict(found.ratio)}
            for found in goals.compare_peers(outcome)
        ],
        "idle": [asdict(figure) for figure in run.idle],
    }


def _case_json(run: Run, case: Case) -> dict[str, Any]:
    summed = figures(run, case)
    return {
        "contender": case.contender,
        **asdict(case.workload),
        "mode": case.mode,
        "samples": summed.samples,
        "percentiles_ns": summed.percentiles,
        "p50_ns": asdict(summed.p50),
        "ratios": {unit: asdict(spread) for unit, spread in summed.ratios.items()},
        "rounds": [
            {
                "round": measurement.round,
                **percentiles(measurement.samples),
                "units_p50_ns": measurement.units,
            }
            for measurement in run.outcome.of(case)
        ],
    }


def to_markdown(run: Run, plot: str) -> str:
    """The report to read; `plot` is the file name of the picture beside it."""
    parts = [
        "# Latency",
        f"`{run.command}`, {run.date}, {run.outcome.rounds} rounds."
        + ("" if run.decides else f" {_UNDECIDED}"),
        _machine(run),
        "## Goals",
        "The figure is the median over the rounds of the ratio of p50s, each to floors measured right before it; "
        "in brackets, the middle half of the rounds. S, F, E, M, B and R are explained below.",
        table(
            ["case", "must", "aim", "measured", "verdict"],
            [[v.title, v.must, v.aim, v.measured, v.verdict] for v in goals.judge(run.outcome, run.idle)],
        ),
        f"![p50 and p99 by size]({plot})",
        *_problems(run.outcome),
        "## Method",
        _METHOD,
        "## Floors",
        _floors(run),
        *_latency_tables(run),
        *_peers(run),
        *_idle(run),
        "## All figures",
        "Times in µs, the cost of timing an empty call taken off. Percentiles by nearest rank over the samples of "
        "all rounds: of fewer than 1,000 samples, p99.9 is their maximum. Ratios are medians over rounds.",
        _all_figures(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_UNDECIDED = f"**Fewer than {MINIMUM_ROUNDS} rounds: this shows the way and decides nothing.**"


def _machine(run: Run) -> str:
    lines = []
    for name, value in run.machine.items():
        shown = (
            ", ".join(f"{key} {version}" for key, version in value.items())
            if isinstance(value, dict)
            else value
        )
        lines.append(f"- {name}: {shown}")
    for name, facts in run.outcome.facts.items():
        if facts:
            lines.append(
                f"- {REGISTRY[name].title}: " + ", ".join(f"{key} {value}" for key, value in facts.items())
            )
    return "\n".join(lines)


def _problems(outcome: Outcome) -> list[str]:
    lines = [f"- {_named(name)} cannot run here: {reason}" for name, reason in outcome.unavailable.items()]
    for name, failure in outcome.failures.items():
        lines.append(f"- {REGISTRY[name].title if name in REGISTRY else name} failed:\n\n```\n{failure}\n```")
    return ["## Not measured", "\n".join(lines)] if lines else []


def _named(name: str) -> str:
    """The title of a contender, with the workload if it is that which it cannot do."""
    contender, slash, workload = name.partition("/")
    return REGISTRY[contender].title + (f" on {workload}" if slash else "")


def _floors(run: Run) -> str:
    rows = [
        [_UNIT_TITLES[unit], _UNIT_NOTES[unit], _us_spread(spread)]
        for unit, spread in unit_figures(run).items()
    ]
    for workload, spread in copy_figures(run).items():
        if workload.model != "echo":  # the same input as for tiny
            rows.append(
                [f"{REGISTRY['M'].title}, {nbytes_title(workload)}", _UNIT_NOTES["M"], _us_spread(spread)]
            )
    return table(["floor", "what it is", "p50 µs [middle half of its measurements]"], rows)


def _latency_tables(run: Run) -> list[str]:
    parts: list[str] = []
    measured = run.cases
    for mode in (BUSY, IDLE):
        for model in ("tiny", "echo", "hundred"):
            here = [case for case in measured if case.mode == mode and case.workload.model == model]
            if not here:
                continue
            workloads = sorted({case.workload for case in here})
            rows = []
            for contender in REGISTRY:
                cells = []
                for workload in workloads:
                    case = Case(workload, contender, mode)
                    cells.append(_p50_p99(run, case) if case in here else "")
                if any(cells):
                    rows.append([REGISTRY[contender].title, *cells])
            parts.append(f"## {_MODEL_TITLES[model].capitalize()}, {_MODE_TITLES[mode]}: p50 (p99), µs")
            parts.append(table(["", *(nbytes_title(workload) for workload in workloads)], rows))
    return parts


def _p50_p99(run: Run, case: Case) -> str:
    found = figures(run, case).percentiles
    return f"{us(found['p50'])} ({us(found['p99'])})"


def _peers(run: Run) -> list[str]:
    """For each opexec case, the peer that comes closest."""
    closest: dict[Case, goals.PeerComparison] = {}
    for found in goals.compare_peers(run.outcome):
        if found.case not in closest or found.ratio.median > closest[found.case].ratio.median:
            closest[found.case] = found
    rows = [
        [
            REGISTRY[case.contender].title,
            f"{nbytes_title(case.workload)}, {_MODEL_TITLES[case.workload.model]}, {_MODE_TITLES[case.mode]}",
            REGISTRY[found.peer].title,
            f"{1 / found.ratio.median:.3g}x [{1 / found.ratio.high:.3g} .. {1 / found.ratio.low:.3g}]",
        ]
        for case, found in sorted(closest.items())
    ]
    return (
        ["## Against the fastest peer", table(["", "case", "fastest peer", "its time over ours"], rows)]
        if rows
        else []
    )


def _idle(run: Run) -> list[str]:
    rows = [
        [
            REGISTRY[figure.contender].title,
            f"{figure.partner_percent:.2f}",
            f"{figure.partner_percent_by_clock:.4f}",
            f"{figure.caller_percent:.4f}",
        ]
        for figure in run.idle
    ]
    if not rows:
        return []
    heads = ["", "model's side, ticks", "model's side, process clock", "caller's process, process clock"]
    return [
        f"## Processor use while idle for {run.settings.idle_seconds:g} s: % of a core",
        table(heads, rows),
    ]


def _all_figures(run: Run) -> str:
    units = ["S", "F", "E", AFTER_IDLE, "M", REFERENCE, "B"]
    rows = []
    for case in run.cases:
        found = figures(run, case)
        rows.append(
            [
                f"`{case}`",
                f"{found.samples}",
                *(us(value) for value in found.percentiles.values()),
                *(f"{found.ratios[unit].median:.3g}" if unit in found.ratios else "" for unit in units),
            ]
        )
    heads = ["case", "samples", "p50", "p90", "p99", "p99.9", *(f"/ {unit}" for unit in units)]
    return f"<details><summary>{len(rows)} cases</summary>\n\n{table(heads, rows)}\n\n</details>"


def nbytes_title(workload: Workload) -> str:
    """Such as 64 B, 4 KiB, 6.91 MB, 64 MiB."""
    nbytes = workload.nbytes
    if nbytes % 2**20 == 0:
        return f"{nbytes // 2**20} MiB"
    if nbytes % 2**10 == 0 and nbytes < 10**6:
        return f"{nbytes // 2**10} KiB"
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if nbytes >= size:
            return f"{nbytes / size:.3g} {unit}"
    return f"{nbytes} B"


def us(nanoseconds: float) -> str:
    """Microseconds with three digits that count."""
    value = nanoseconds / 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _us_spread(spread: Spread) -> str:
    return f"{us(spread.median)} [{us(spread.low)} .. {us(spread.high)}]"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [_row(heads), _row(["---"] * len(heads))]
    return "\n".join(lines + [_row(row) for row in rows])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
