"""`opexec env lock`"""

from __future__ import annotations

from pathlib import Path

import click

from ... import show


@click.command(short_help="Print or write its exact versions.")
@click.argument("name")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write them to this file, which is replaced. [default: standard output]",
)
def command(name: str, output: Path | None) -> None:
    """Print the exact version of every package in the environment NAME (or with that key), as a requirements file; of a conda environment as
    conda's own list of packages.

    `opexec env create NAME --lock FILE` builds the same again, on another machine too.
    """
    from ....environments import store as environment_store
    from ....errors import BuildError
    from ....files import caches

    found = environment_store.find(name)
    if found.lock is None:
        raise BuildError(
            f"the environment {name!r} has no list of exact versions. Conda gives none where it has pip install packages."
        )
    text = found.lock.read_text(encoding="utf-8")
    if output is None:
        print(text, end="")
        return
    if not output.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {output.absolute().parent}", param_hint="--output")
    caches.write_text(output.absolute(), text)
    show.note(f"wrote the versions of {name} to {output}")
