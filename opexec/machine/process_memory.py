"""What a process holds for itself."""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path


def private_memory(pid: int) -> int:
    """Bytes of private memory that a process has in RAM; shared memory and files that it maps do not count. 0 if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # In pages: size, resident, and what of that is shared or of a file (proc_pid_statm(5)). All zero once it has ended.
        _, resident, shared = Path(f"/proc/{pid}/statm").read_bytes().split()[:3]
        return (int(resident) - int(shared)) * mmap.PAGESIZE
    return 0
