"""What a process holds for itself."""

from __future__ import annotations

import contextlib
from pathlib import Path


def private_memory(pid: int) -> int:
    """Bytes of private memory that a process has in RAM; shared memory and files that it maps do not count. 0 if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(
                b"RssAnon:"
            ):  # "RssAnon:    1234 kB"; a process that has ended has no such line
                return int(line.split()[1]) << 10
    return 0
