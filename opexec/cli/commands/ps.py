"""`opexec ps`"""

from __future__ import annotations

import time
from typing import Any

import click

from .. import show


@click.command(short_help="List the models that this user's processes share.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="As JSON, for programs: times in seconds since 1970, memory in bytes.",
)
def command(as_json: bool) -> None:
    """List the models that processes of this user share now: those of `opexec up`, and those of programs that share one.

    STATE is that of the model's worker, or of all its replicas, the worst first, of which FOR and REASON tell. CALLS are those of the owner
    and of all clients since the model was shared; MEMORY is what its workers hold in RAM; CLIENTS are the processes that are attached.
    """
    from ...sharing import listing

    found = listing.running()
    if as_json:
        show.as_json(found)
    elif not found:
        show.note("no models are shared; `opexec up` shares those of a file")
    else:
        columns = [
            show.Column("NAME", shrinks=True),
            show.Column("STATE", shrinks=True),
            show.Column("FOR", right=True),
            show.Column("WORKER", right=True),
            show.Column("OWNER", right=True, needs=90),
            show.Column("RUNS", shrinks=True, needs=70),
            show.Column("CALLS", right=True),
            show.Column("MEMORY", right=True),
            show.Column("CLIENTS", right=True),
            show.Column("REASON", shrinks=True, needs=110),
        ]
        show.table(columns, [_row(one) for one in found])


def _row(one: dict[str, Any]) -> list[str]:
    from ... import sizes, states

    def text(key: str) -> str:
        return "" if one.get(key) is None else str(one[key])

    pids = one.get("pids") or []
    framework = f"{text('framework')} {text('framework_version')}, ".lstrip()
    python = text("python") and f"Python {text('python')}"
    runs = python if text("framework") in ("", "python") else framework + python
    return [
        one["name"],
        states.summary(worker["state"] for worker in one["workers"]) if one.get("workers") else one["state"],
        _span(time.time() - one["since"]) if one.get("since") else "",
        f"{pids[0]}+{len(pids) - 1}" if len(pids) > 1 else text("pid"),
        text("owner"),
        runs,
        text("calls"),
        sizes.text(one["memory"]) if "memory" in one else "",
        text("clients"),
        text("reason").partition("\n")[0],
    ]


def _span(seconds: float) -> str:
    """A time since something began: ``"3 h"``."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{max(int(seconds), 0)} s"
