"""`opexec env show`"""

from __future__ import annotations

import click

from ....sizes import ago
from ....sizes import text as size
from ... import described, show


@click.command(short_help="Show one: what was asked for, what is in it, who uses it.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs; sizes in bytes.")
def command(name: str, as_json: bool) -> None:
    """Show the environment NAME, or the one with that key (its beginning is enough)."""
    from ....environments import cleanup as environment_cleanup
    from ....environments import store as environment_store

    found = environment_store.find(name)
    disk = environment_cleanup.Disk([found.home])
    running = environment_cleanup.users().get(found.key, [])
    if as_json:
        show.as_json({**described.as_json(found, disk), "processes": running})
        return
    pairs = [
        ("name", ", ".join(found.names) or "none"),
        ("key", found.key),
        *((f"asked for {argument}", value) for argument, value in described.pairs(found.request)),
        ("python", f"{found.python}, made from {found.base}"),
        ("interpreter", str(found.interpreter) if found.complete else "not complete"),
        ("passed over", ", ".join(f"Python {each}" for each in found.passed_over)),
        ("size", f"{size(disk.size(found.key))}, {size(disk.freed(found.key))} of it its own"),
        ("created", _when(found.created)),
        ("last used", _when(found.used)),
        ("in use by", ", ".join(f"process {pid}" for pid in running) or "nobody"),
    ]
    show.facts([(label, value) for label, value in pairs if value])
    if found.packages:
        print()
        show.table(
            (show.Column("package"), show.Column("version", shrinks=True)), list(found.packages.items())
        )


def _when(time: object) -> str:
    import datetime

    if not isinstance(time, datetime.datetime):
        return ""
    return f"{ago(time)} ({time.astimezone():%Y-%m-%d %H:%M})"
