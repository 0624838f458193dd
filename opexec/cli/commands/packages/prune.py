"""`opexec packages prune`"""

from __future__ import annotations

import datetime

import click

from ....sizes import ago
from ....sizes import text as size
from ... import show
from ...parameters import Size, Span


@click.command(short_help="Remove those that are old, or too much.")
@click.option("--older-than", type=Span(), metavar="SPAN", help="Those not used for so long: 30d, 12h, 2w.")
@click.option(
    "--larger-than",
    type=Size(),
    metavar="SIZE",
    help="As long as all take more than this (20GB), the one used least recently.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Only tell what would be removed.")
def command(older_than: datetime.timedelta | None, larger_than: int | None, dry_run: bool) -> None:
    """Remove unpacked packages by age and total size, and what interrupted programs left of them.

    A package stays if a model runs from it, or if it was used in the last five minutes. One that is removed is unpacked again
    when it is next asked for.
    """
    from ....packages import cleanup

    with show.working("looking at the packages"):
        plan = cleanup.plan(older_than=older_than, larger_than=larger_than)
        if not dry_run:
            plan = cleanup.carry_out(plan)
    rows = [
        (
            verb,
            verdict.package.name or verdict.package.key[:12],
            size(verdict.package.size),
            ago(verdict.package.used),
            verdict.reason,
        )
        for verb, verdicts in (("remove" if dry_run else "removed", plan.remove), ("keep", plan.spared))
        for verdict in verdicts
    ]
    if rows:
        show.table(_COLUMNS, rows)
    if not plan.remove:
        show.note(f"nothing to remove; unpacked packages take {size(plan.before)}")
    else:
        took, take = ("take", "would take") if dry_run else ("took", "take")
        show.note(f"unpacked packages {took} {size(plan.before)} and {take} {size(plan.after)}")
    if older_than is None and larger_than is None:
        show.note(
            "only what interrupted programs left was looked for; give --older-than 30d or --larger-than 20GB for more"
        )


_COLUMNS = (
    show.Column("what"),
    show.Column("package", shrinks=True),
    show.Column("size", right=True),
    show.Column("used", needs=70),
    show.Column("why", shrinks=True),
)
