"""How a run is written down as a command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def spelled(name: str, argv: Sequence[str]) -> str:
    """The command, without where its output went: that is this machine's affair."""
    kept, arguments = [], iter(argv)
    for argument in arguments:
        if argument == "--output":
            next(arguments, None)
        elif not argument.startswith("--output="):
            kept.append(argument)
    return " ".join(filter(None, ["python -m benchmarks", name, shlex.join(kept)]))
