"""A run written down: JSON with everything, and the table that the docs show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.frameworks.comparing import QUICK_ALLOWANCE_NS, THREADS, Comparison, Settings
from benchmarks.frameworks.environments import FRAMEWORKS
from benchmarks.goals import AIM_MET, MUST_MET, NOT_MET
from benchmarks.grid import MINIMUM_ROUNDS
from benchmarks.ratios import Spread
from benchmarks.report import us

SCHEMA = 1
MUST, AIM = 1.0, 0.5
NO_VERDICT = "no verdict"
"""The rounds differ from each other by more than the bound."""
BEGIN, END = (
    "<!-- python -m benchmarks frameworks: begin -->",
    "<!-- python -m benchmarks frameworks: end -->",
)


@dataclass(frozen=True)
class Run:
    """A run and everything said about it; `failures` by framework."""

    command: str
    date: str
    machine: dict[str, Any]
    settings: Settings
    comparisons: Sequence[Comparison]
    failures: dict[str, str]

    @property
    def decides(self) -> bool:
        return self.settings.rounds >= MINIMUM_ROUNDS


def verdict(ratio: Spread) -> str:
    """By the median. A middle half that is wider than the whole bound says nothing of it: the machine or the model is noisier than that."""
    if ratio.high - ratio.low > MUST:
        return NO_VERDICT
    if ratio.median <= AIM:
        return AIM_MET
    return MUST_MET if ratio.median <= MUST else NOT_MET


def to_json(run: Run) -> dict[str, Any]:
    """Everything but the single samples; times in nanoseconds."""
    return {
        "schema": SCHEMA,
        "command": run.command,
        "date": run.date,
        "machine": run.machine,
        "settings": asdict(run.settings),
        "failures": run.failures,
        "comparisons": [
            {
                **asdict(one),
                "in_process_p50_ns": asdict(one.in_process),
                "overhead_p50_ns": asdict(one.overhead),
                "quick": one.is_quick,
                "ratio": asdict(one.ratio),
                "verdict": verdict(one.ratio),
            }
            for one in run.comparisons
        ],
    }


def to_markdown(run: Run) -> str:
    """The table, with what a reader must know beside it."""
    floors = [one for comparison in run.comparisons for one in comparison.rounds]
    machine = run.machine
    lines = [
        f"`{run.command}`, {run.date}, {run.settings.rounds} rounds, {THREADS} thread on both sides, on {machine['cpu']}, "
        f"{machine['cores usable']} cores"
        + (", a virtual machine" if machine["virtual"] else "")
        + f", load average {machine['load average before']} before."
    ]
    if not run.decides:
        lines.append(f"**Fewer than {MINIMUM_ROUNDS} rounds: this shows the way and decides nothing.**")
    if floors:
        eventfd = Spread.of([one.eventfd_idle for one in floors])
        copy = Spread.of([one.copy for one in floors])
        lines.append(
            f"E was {_spread(eventfd)} µs, M {_spread(copy)} µs (median and middle half over all rounds)."
        )
        lines.append(_table(run.comparisons))
    lines += [f"{name} was not measured:\n\n```\n{reason}\n```" for name, reason in run.failures.items()]
    return "\n\n".join(lines) + "\n"


def _table(comparisons: Sequence[Comparison]) -> str:
    heads = (
        *("framework", "version", "Python", "model", "copied in", "copied out"),
        *("in process µs", "isolation adds µs", "of its bound", "verdict"),
    )
    rows = [
        (
            FRAMEWORKS[one.framework].title,
            f"{one.facts['framework']} {one.facts['version']}"
            if one.facts["framework"] != "python"
            else f"numpy {one.facts['numpy']}",
            one.facts["python"],
            one.model,
            f"{one.facts['copied in of empty']:,} B",
            f"{one.facts['copied out']:,} B",
            us(one.in_process.median),
            _spread(one.overhead),
            f"{one.ratio.median:.2f} [{one.ratio.low:.2f} .. {one.ratio.high:.2f}] of M + {_other(one)}",
            verdict(one.ratio),
        )
        for one in comparisons
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows))


def _other(comparison: Comparison) -> str:
    return f"{QUICK_ALLOWANCE_NS // 1000} µs" if comparison.is_quick else "2 E"


def _spread(spread: Spread) -> str:
    return f"{_us(spread.median)} [{_us(spread.low)} .. {_us(spread.high)}]"


def _us(nanoseconds: float) -> str:
    """A difference may be negative."""
    return ("-" if nanoseconds < 0 else "") + us(abs(nanoseconds))


def update(page: Path, text: str) -> None:
    """Put `text` between the two marks on a page. Raises ValueError where it lacks them."""
    whole = page.read_text("utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the lines {BEGIN} and {END} in {page}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", "utf-8")
