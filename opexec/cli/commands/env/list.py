"""`opexec env list`"""

from __future__ import annotations

import click

from ....sizes import ago
from ....sizes import text as size
from ... import described, show


@click.command(short_help="List them, with what they take and their last use.")
@click.option("--named", is_flag=True, help="Only those that have a name.")
@click.option(
    "--disk",
    "measure",
    is_flag=True,
    help="Look at every file: what they take together, and what removing them frees.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs; sizes in bytes.")
def command(named: bool, measure: bool, as_json: bool) -> None:
    """List the environments in the cache: those with names, then those that programs asked for without one, by last use.

    The size is that when it was built, every file counted once, as `du` does. Environments and uv's cache share files, so
    several take less than the sum; --disk tells.
    """
    from ....environments import cleanup as environment_cleanup
    from ....environments import store as environment_store
    from ....files import caches

    found = [each for each in environment_store.stored() if each.names or not named]
    there = {each.key for each in found}
    gone = [name for name in environment_store.names() if name.key not in there]
    disk = None
    if measure:
        with show.working(f"looking at the files of {len(found)} environments"):
            disk = environment_cleanup.Disk(each.home for each in found)
    if as_json:
        show.as_json(
            [described.as_json(each, disk) for each in found]
            + [described.gone_as_json(name) for name in gone]
        )
        return
    rows = [
        (
            described.names(each),
            each.python or "",
            str(len(each.packages) or ""),
            described.size(each, disk),
            size(disk.freed(each.key)) if disk else "",
            ago(each.used) if each.complete and each.used else "",
            described.wanted(each.request)
            if each.complete
            else "not complete: `opexec env prune` removes it",
        )
        for each in found
    ]
    rows += [
        (name.name, name.python, "", "", "", "", "not in the cache: built when it is next used")
        for name in gone
    ]
    if not rows:
        show.note(f"no environments in {caches.root()}; `opexec env create NAME REQUIREMENT...` makes one")
        return
    columns = [column for column in _COLUMNS if disk or column.title != "frees"]
    show.table(columns, [[cell for cell, column in zip(row, _COLUMNS) if column in columns] for row in rows])
    together = f", together {size(disk.size(*disk.keys))}" if disk else ""
    show.note(f"{len(found)} environment{'s' * (len(found) != 1)}{together} in {caches.root()}")


_COLUMNS = (
    show.Column("name", shrinks=True),
    show.Column("python"),
    show.Column("packages", right=True, needs=80),
    show.Column("size", right=True),
    show.Column("frees", right=True, needs=50),
    show.Column("used", needs=50),
    show.Column("made for", shrinks=True),
)
