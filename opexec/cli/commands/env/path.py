"""`opexec env path`"""

from __future__ import annotations

import click


@click.command(short_help="Print the path of its interpreter, for scripts.")
@click.argument("name")
def command(name: str) -> None:
    """Print the path of the interpreter of the environment NAME, which is built if it is not there.

    \b
    $(opexec env path tf115) script.py
    """
    from ....environments import store as environment_store

    print(environment_store.resolve(name))
