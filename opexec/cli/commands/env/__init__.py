"""`opexec env`: environments by name."""

from __future__ import annotations

from ...group import CommandFolder

command = CommandFolder(
    __name__,
    __path__,
    name="env",
    short_help="Build environments, name them, list and remove them.",
    help="Build environments for models, give them names, see what they take, remove them.",
    epilog='A program uses one by its name: opexec.load(..., env="NAME").',
    no_args_is_help=True,
)
