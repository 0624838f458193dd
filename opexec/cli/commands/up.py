"""`opexec up`"""

from __future__ import annotations

import logging
from pathlib import Path

import click


@click.command(short_help="Load the models of a file and share them with other processes.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default="models.toml")
@click.option("--quiet", "-q", is_flag=True, help="Log warnings and errors only.")
def command(file: Path, quiet: bool) -> None:
    """Load the models of FILE [default: models.toml] and share them with the other processes of this user, until Ctrl-C or SIGTERM.

    FILE has a table [models.NAME] for each, with the arguments of opexec.load: source, env = { python = "3.9", requirements = [...] },
    replicas and so on. Programs call a model with opexec.attach("NAME").

    SIGHUP has the file read again: new models are loaded, those that are gone are ended, changed ones are replaced; the others are not
    touched. What happens is logged to standard error.
    """
    from ...sharing import up

    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    up.run(file)
