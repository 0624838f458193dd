"""Commands that are found in a folder, and imported when they are asked for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import click


class CommandFolder(click.Group):
    """The commands in the modules of a package: each has a `click.Command` called ``command``.

    A module's name is the command's, with ``-`` for ``_``. Only the command that is run is imported, so that none waits for what
    another one needs; but for `--help` all are.

    Args:
        package: the package's name.
        path: where it is, its ``__path__``.
    """

    def __init__(self, package: str, path: Iterable[str], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._package = package
        self._path = list(path)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(self._path))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"{self._package}.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command
