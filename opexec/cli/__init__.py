"""The `opexec` command.

A command is a module in `commands`, named as the command and with a `click.Command` called ``command`` in it; a group of commands
is a folder there. That is all: `group` finds them. What is shown goes through `show`, so that it reads well on a terminal of any
width, in a pipe, and as JSON. Rooms beside this package do the work; here they are only called.

Standard output has what was asked for, standard error all else. The exit status is 0, 1 where something failed, 2 where
the command line was not understood, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command that `sys.argv` asks for, and end the process."""
    import click

    from ..errors import OpexecError
    from . import show
    from .root import command

    try:
        ended = command.main(prog_name="opexec", standalone_mode=False)
        sys.stdout.flush()
        status = ended if isinstance(ended, int) else 0  # an int where a command ended by `Context.exit`
    except (click.Abort, KeyboardInterrupt):
        show.note("interrupted")
        status = 130
    except click.ClickException as error:  # the command line
        error.show()
        status = error.exit_code
    except OpexecError as error:
        show.failure(str(error))
        status = 1
    except BrokenPipeError:
        # Who read has seen enough (`opexec env list | head -1`). What is left to be written goes nowhere, without a complaint at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    sys.exit(status)
