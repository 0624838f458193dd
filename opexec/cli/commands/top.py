"""opexec top"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ... import sizes, states
from .. import show

if TYPE_CHECKING:
    from rich.table import Table

    from ...metrics.watching import Watched

COLUMNS = [
    show.Column("MODEL", shrinks=True),
    show.Column("STATE"),
    show.Column("CALLS/S", right=True),
    show.Column("P50", right=True),
    show.Column("P99", right=True),
    show.Column("IN FLIGHT", right=True, needs=90),
    show.Column("CPU %", right=True),
    show.Column("MEMORY", right=True),
    show.Column("SHARED", right=True, needs=80),
    show.Column("CALLS", right=True, needs=100),
    show.Column("ERRORS", right=True, needs=110),
    show.Column("RESTARTS", right=True, needs=120),
    show.Column("CLIENTS", right=True, needs=130),
    show.Column("QUEUE P99", right=True, needs=140),
    show.Column("CALLS/BATCH", right=True, needs=150),
    show.Column("FILL", right=True, needs=160),
    show.Column("OWNER", right=True),
]


@click.command(short_help="Show live what the shared models do.")
@click.option(
    "--interval",
    "-n",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long between two looks.",
)
@click.option("--once", is_flag=True, help="Show one interval, and end.")
@click.option("--json", "json_", is_flag=True, help="Print one interval as JSON, and end.")
def command(interval: float, once: bool, json_: bool) -> None:
    """Show what the shared models of all your programs do, live, until Ctrl-C.

    CALLS/S and CPU % (of one core) are those of the last interval; P50 and P99 are of whole calls of the owner since the model was loaded,
    QUEUE P99 of those that waited to be sent (max_pending, batching), CALLS/BATCH and FILL of its batches.
    MEMORY is what the workers hold, with the shared memory that they have mapped. A program's models show up once it shares them.
    """
    from ...metrics.watching import Watcher

    with Watcher() as watcher:
        if once or json_ or not show.is_terminal():
            if watcher.look():
                time.sleep(interval)
            found = watcher.look()
            if json_:
                show.as_json([dataclasses.asdict(one) for one in found])
            elif found:
                show.table(COLUMNS, [_row(one) for one in found])
            else:
                show.note(_NOTHING)
            return
        from rich.live import Live

        # Ctrl-C is how it ends.
        with contextlib.suppress(KeyboardInterrupt), Live(screen=True, auto_refresh=False) as live:
            while True:
                live.update(_live(watcher.look(), live.console.width), refresh=True)
                time.sleep(interval)


_NOTHING = "no program of yours shares a model at the moment (see Model.share, `opexec up`)"


def _live(found: Sequence[Watched], width: int) -> Table | str:
    from rich.table import Table
    from rich.text import Text

    if not found:
        return f"opexec: {_NOTHING}"
    shown = [number for number, column in enumerate(COLUMNS) if column.needs <= width]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number in shown:
        column = COLUMNS[number]
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
    for one in found:
        row = _row(one)
        style = "red" if "failed" in row[1] or row[1] == "unreachable" else None
        table.add_row(*(Text(row[number]) for number in shown), style=style)
    return table


def _row(one: Watched) -> list[str]:
    seen = one.seen
    if seen is None:
        return [one.name, "unreachable", *[""] * (len(COLUMNS) - 2)]
    total, queue = seen["latency"].get("total"), seen["latency"].get("queue")
    batches = seen["batches"]
    memory = [worker["memory"] for worker in seen["workers"] if worker["memory"] is not None]
    return [
        one.name,
        states.summary(worker["state"] for worker in seen["workers"]),
        _number(one.calls_per_s),
        sizes.duration(total["p50"]) if total else "",
        sizes.duration(total["p99"]) if total else "",
        str(seen["in_flight"]),
        _number(one.cpu_percent),
        sizes.text(sum(memory)) if memory else "",
        sizes.text(seen["shared_memory"]),
        str(seen["calls"] + seen["client_calls"]),
        str(sum(seen["errors"].values())),
        str(seen["restarts"]),
        str(seen["clients"]),
        sizes.duration(queue["p99"]) if queue else "",
        _number(batches["mean_calls"]) if batches else "",
        f"{batches['fill']:.0%}" if batches else "",
        str(seen["owner"]),
    ]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.3g}"
