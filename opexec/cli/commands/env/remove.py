"""`opexec env remove`"""

from __future__ import annotations

import click

from ... import show


@click.command(short_help="Remove environments and their names.")
@click.argument("name", nargs=-1, required=True)
def command(name: tuple[str, ...]) -> None:
    """Remove each environment NAME (or with that key), its name and its list of versions.

    One that a process runs in stays. One that has another name too only loses this one.
    """
    from ....environments import cleanup as environment_cleanup
    from ....errors import BuildError

    failures = []
    for each in dict.fromkeys(name):
        try:
            show.note(environment_cleanup.remove_named(each))
        except BuildError as error:
            failures.append(str(error))
    if failures:
        raise BuildError("\n".join(failures))
