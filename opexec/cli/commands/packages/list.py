"""`opexec packages list`"""

from __future__ import annotations

import click

from ....sizes import ago
from ....sizes import text as size
from ... import show


@click.command(short_help="List them, with what they take and their last use.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs; sizes in bytes.")
def command(as_json: bool) -> None:
    """List the packages that are unpacked in the cache, by last use. The source is the zip that each was first unpacked from."""
    from ....files import caches
    from ....packages import cleanup

    found = cleanup.kept()
    if as_json:
        show.as_json(
            [
                {
                    "name": each.name,
                    "hash": each.key,
                    "source": each.source,
                    "folder": str(each.home / "tree"),
                    "size": each.size,
                    "used": each.used.isoformat(),
                    "in_use": each.in_use,
                }
                for each in found
            ]
        )
        return
    if not found:
        show.note(f"no packages are unpacked in {caches.root()}")
        return
    rows = [
        (
            each.name,
            each.key[:12],
            size(each.size),
            "in use" if each.in_use else ago(each.used),
            each.source,
        )
        for each in found
    ]
    show.table(_COLUMNS, rows)
    together = size(sum(each.size for each in found))
    show.note(f"{len(found)} package{'s' * (len(found) != 1)}, together {together}, in {caches.root()}")


_COLUMNS = (
    show.Column("name", shrinks=True),
    show.Column("hash", needs=80),
    show.Column("size", right=True),
    show.Column("used"),
    show.Column("source", shrinks=True),
)
