"""The real command: in a process of its own, in a pipe or on a terminal of a given width; or, without the half second that a new
process takes to import it, in this one.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from opexec.cli import main

REPOSITORY = Path(__file__).parents[1]
PATIENCE = 100.0  # seconds after which something that never happens fails a test

_COMMAND = [sys.executable, "-m", "opexec"]


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


def opexec(*arguments: str | Path, first: Callable[[], object] | None = None, **variables: str) -> Done:
    """Run it with its output in pipes. `first` runs in the child before it, `variables` are added to the environment."""
    done = subprocess.run(
        [*_COMMAND, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=first,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def opexec_here(*arguments: str | Path) -> Done:
    """Run it in this process, from its `main`, with its output in files; models still run in workers."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["opexec", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        status = end.code or 0
    finally:
        sys.argv = before
    assert "Traceback" not in err.getvalue(), err.getvalue()
    assert isinstance(status, int)
    return Done(status, out.getvalue(), err.getvalue())


def on_terminal(columns: int, *arguments: str | Path) -> list[str]:
    """The lines that are left to be seen on a terminal so wide."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environ = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [*_COMMAND, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**environ, "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other side has closed it
        while select.select([controller], [], [], PATIENCE)[0] and (part := os.read(controller, 65536)):
            shown += part
    os.close(controller)
    process.wait(PATIENCE)
    assert b"Traceback" not in shown, shown.decode()
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    # Of what was drawn over, as a spinner is, the last remains; an erased line is empty.
    lasting = [re.split(r"\r|\x1b\[2K", line)[-1] for line in lines]
    return [text for line in lasting if (text := re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip())]
