"""What `opexec` itself takes: the commands, `--version` and `--help`."""

from __future__ import annotations

import sys

import click

from ..ipc import VERSION
from . import commands
from .group import CommandFolder

command = CommandFolder(
    commands.__name__,
    commands.__path__,
    help="Run models of any framework and version in one program, each in its own process and Python.",
    epilog="`opexec COMMAND --help` tells more about one.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
command = click.version_option(
    VERSION,
    "--version",
    "-V",
    message=f"opexec {VERSION} (Python {'.'.join(map(str, sys.version_info[:3]))})",
)(command)
