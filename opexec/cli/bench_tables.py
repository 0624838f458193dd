"""How `opexec bench` shows a report on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import show

if TYPE_CHECKING:
    from ..bench.comparing import Changes
    from ..bench.report import Report


def latency(report: Report) -> None:
    from ..bench import words

    several = len(report.results) > 1
    low, high = words.bounds(report)
    columns = [
        show.Column("", shrinks=True),
        show.Column("p50", right=True),
        show.Column("p90", right=True, needs=90),
        show.Column("p99", right=True),
        show.Column("p99.9", right=True, needs=100),
        show.Column("max", right=True, needs=70),
        show.Column("calls/s", right=True),
        *([show.Column("p50 against base", needs=80)] if several else []),
        show.Column("p50 ● ┼ p90 ─ p99 · max", needs=130),
    ]
    rows = []
    for result in report.results:
        found = result.latency if result.error is None else None
        times = ("p50", "p90", "p99", "p999", "max")
        rows.append(
            [
                result.label,
                *(
                    ("failed" if time == "p50" else "")
                    if found is None
                    else words.duration(getattr(found, time))
                    for time in times
                ),
                "" if found is None else words.number(result.throughput),
                *([words.against_base(report, result)] if several else []),
                words.strip(result, low, high),
            ]
        )
    show.table(columns, rows)


def costs(report: Report) -> None:
    from .. import sizes
    from ..bench import words

    columns = (
        show.Column("", shrinks=True),
        show.Column("load", right=True),
        show.Column("first call", right=True),
        show.Column("after idle", right=True, needs=60),
        show.Column("CPU caller", right=True, needs=100),
        show.Column("CPU worker", right=True, needs=100),
        show.Column("copied/call", right=True, needs=90),
        show.Column("memory", right=True),
        show.Column("shared", right=True, needs=110),
    )
    rows = [
        [
            result.label,
            words.duration(sorted(result.start.loads)[len(result.start.loads) // 2]),
            words.duration(sorted(result.start.first_calls)[len(result.start.first_calls) // 2]),
            "" if result.after_idle is None else words.duration(result.after_idle.p50),
            words.duration(result.costs.caller_cpu),
            words.duration(result.costs.worker_cpu),
            words.copied(result),
            words.memory(result),
            sizes.text(result.costs.shared_memory) if result.costs.shared_memory else "",
        ]
        for result in report.results
        if result.start is not None and result.costs is not None
    ]
    if rows:
        print()
        show.table(columns, rows)


def breakdown(report: Report) -> None:
    from ..bench import words
    from ..bench.breakdown import STEPS

    found = [(result.label, result.breakdown) for result in report.results if result.breakdown is not None]
    if not found:
        return
    print()
    columns = [show.Column("step of a call")]
    for label, _ in found:
        columns += [show.Column(label, right=True, shrinks=True)]
    columns.append(show.Column("what it is", shrinks=True, needs=60 + 12 * len(found)))
    rows = [
        [
            step.name,
            *(
                f"{words.duration(each.steps[step.key])} {each.steps[step.key] / each.total:4.0%}"
                for _, each in found
            ),
            step.meaning,
        ]
        for step in STEPS
    ]
    rows.append(["all", *(f"{words.duration(each.total)} {1:4.0%}" for _, each in found), ""])
    show.table(columns, rows)


def changes(found: Changes) -> None:
    from ..bench import words

    columns = (
        show.Column("", shrinks=True),
        show.Column("p50 then", right=True),
        show.Column("now", right=True),
        show.Column("p99 then", right=True, needs=90),
        show.Column("now", right=True, needs=90),
        show.Column("change of p50"),
    )
    rows = []
    for each in found.changes:
        assert each.old.latency is not None and each.new.latency is not None
        rows.append(
            [
                each.label,
                words.duration(each.old.latency.p50),
                words.duration(each.new.latency.p50),
                words.duration(each.old.latency.p99),
                words.duration(each.new.latency.p99),
                words.change(each),
            ]
        )
    print()
    show.table(columns, rows)
