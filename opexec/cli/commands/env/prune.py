"""`opexec env prune`"""

from __future__ import annotations

import datetime

import click

from ....sizes import ago
from ....sizes import text as size
from ... import show
from ...parameters import Size, Span


@click.command(short_help="Remove environments that are old, or too much.")
@click.option("--older-than", type=Span(), metavar="SPAN", help="Those not used for so long: 30d, 12h, 2w.")
@click.option(
    "--larger-than",
    type=Size(),
    metavar="SIZE",
    help="As long as all take more than this (20GB), the one used least recently.",
)
@click.option("--named", is_flag=True, help="Also those that have a name.")
@click.option("--dry-run", "-n", is_flag=True, help="Only tell what would be removed.")
def command(
    older_than: datetime.timedelta | None, larger_than: int | None, named: bool, dry_run: bool
) -> None:
    """Remove environments by age and total size, and what interrupted builds left.

    An environment stays if a process runs in it, if it was used in the last five minutes, or if it has a name (without
    --named). One that is removed is built again, with the same versions, when it is next asked for.
    """
    from ....environments import cleanup as environment_cleanup

    with show.working("looking at the environments"):
        plan = environment_cleanup.plan(older_than=older_than, larger_than=larger_than, named=named)
        if not dry_run:
            plan = environment_cleanup.carry_out(plan)
    rows = [
        (
            verb,
            verdict.environment.called,
            size(verdict.size),
            ago(verdict.environment.used) if verdict.environment.used else "",
            verdict.reason,
        )
        for verb, verdicts in (("remove" if dry_run else "removed", plan.remove), ("keep", plan.spared))
        for verdict in verdicts
    ]
    if rows:
        show.table(_COLUMNS, rows)
    if not plan.remove:
        show.note(f"nothing to remove; environments take {size(plan.before)}")
    elif dry_run:
        show.note(
            f"environments take {size(plan.before)} and would take {size(plan.after)}; {size(plan.freed)} would be free again"
        )
    else:
        show.note(
            f"environments took {size(plan.before)} and take {size(plan.after)}; {size(plan.freed)} are free again"
        )
    if plan.freed < plan.before - plan.after:
        show.note("uv's cache has the rest of what was removed too: `uv cache prune` is for that")
    if older_than is None and larger_than is None:
        show.note(
            "only what interrupted builds left was looked for; give --older-than 30d or --larger-than 20GB for more"
        )


_COLUMNS = (
    show.Column("what"),
    show.Column("environment", shrinks=True),
    show.Column("size", right=True),
    show.Column("used", needs=70),
    show.Column("why", shrinks=True),
)
