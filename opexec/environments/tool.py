"""Running a tool that installs: what it says as it says it, locks held for as long as it runs, and nothing of it left when interrupted."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# What ends a line; that of a bar, which is then drawn anew, is kept. A \r that was read last may yet be half of \r\n.
_END = re.compile(r"(\r\n|\n|\r(?=[^\n]))")


@dataclass(frozen=True)
class Ended:
    status: int
    """As `subprocess` has it: negative for a signal."""
    said: str
    """All its lines, but of those that it drew again and again only the last."""

    @property
    def how(self) -> str:
        """The end, in words that follow the tool's name."""
        if self.status < 0:
            return f"was ended by {signal.Signals(-self.status).name}"
        return f"ended with status {self.status}"


def follow(
    command: Sequence[str | Path],
    environ: Mapping[str, str],
    *,
    on_line: Callable[[str], None] = lambda line: None,
    keep_open: Sequence[int] = (),
    stdout: IO[str] | int | None = None,
) -> Ended:
    """Run a tool and hand on each line it says, also one that ends in ``...`` before it is finished.

    Args:
        keep_open: descriptors that it inherits, so that a lock held by this process is held as long as the tool runs.
        stdout: where its standard output goes; None: it belongs to what the tool says.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.STDOUT if stdout is None else subprocess.PIPE,
        bufsize=0,
        pass_fds=tuple(keep_open),
        start_new_session=True,
    )
    pipe = process.stdout if stdout is None else process.stderr
    assert pipe is not None
    said: list[str] = []
    try:
        with pipe:
            _read(pipe.fileno(), said, on_line)
        status = process.wait()
    except BaseException:
        # Ctrl-C, or `on_line` raised: with the tool go the compilers it may have started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return Ended(status, "\n".join(said).strip())


def _read(pipe: int, said: list[str], on_line: Callable[[str], None]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    unfinished = told = ""
    while chunk := os.read(pipe, 1 << 16):
        *pieces, unfinished = _END.split(unfinished + decoder.decode(chunk))
        for line, end in zip(pieces[::2], pieces[1::2]):
            on_line(line.rstrip())
            if end != "\r":
                said.append(line.rstrip())
        if unfinished.rstrip().endswith("...") and unfinished != told:
            told = unfinished
            on_line(unfinished.rstrip())
    if unfinished.strip():
        on_line(unfinished.rstrip())
        said.append(unfinished.rstrip())
