"""The environments that peers run in: one for each set of packages, built once and kept in opexec's cache."""

from __future__ import annotations

import sys

from benchmarks.contender import REGISTRY, Unavailable
from opexec import BuildError, Environment


def interpreter(contender: str) -> str:
    """The Python that the contender's process runs in: of the run's own version, if its packages can be had for that.

    Raises Unavailable where its environment cannot be built.
    """
    entry = REGISTRY[contender]
    if not entry.requirements:
        return sys.executable
    try:
        return str(Environment(requirements=entry.requirements).resolve())
    except BuildError as error:
        raise Unavailable(f"its environment cannot be built: {error}") from error
