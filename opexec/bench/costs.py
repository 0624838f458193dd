"""What calls cost beside time: CPU seconds of caller and workers, memory, bytes copied."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..model import Model

_PROCESS_CLOCK = 2
"""CPUCLOCK_SCHED of Linux: nanoseconds that the scheduler gave to all threads of a process."""


@dataclass(frozen=True)
class Counters:
    """As they stand at one moment; `minus` gives what happened since another. CPU times in seconds, sizes in bytes."""

    caller: float
    worker: float | None
    """None where there is no worker, or it has just ended."""
    copied_in: int
    copied_out: int

    @classmethod
    def of(cls, model: Model, isolated: bool) -> Counters:
        stats = model.stats()
        caller = time.process_time_ns() / 1e9
        worker = cpu_seconds(pids(model)) if isolated else None
        return cls(caller, worker, stats.bytes_copied_in, stats.bytes_copied_out)

    def minus(self, before: Counters) -> Counters:
        known = self.worker is not None and before.worker is not None
        return Counters(
            self.caller - before.caller,
            max(self.worker - before.worker, 0.0) if known else None,  # type: ignore[operator]
            self.copied_in - before.copied_in,
            self.copied_out - before.copied_out,
        )


def pids(model: Model) -> list[int]:
    """The processes of a model's workers, and what these have started."""
    found = []
    for worker in model.workers:
        if worker.pid is not None:
            found.append(worker.pid)
            with contextlib.suppress(psutil.Error):
                found += [child.pid for child in psutil.Process(worker.pid).children(recursive=True)]
    return found


def cpu_seconds(processes: list[int]) -> float | None:
    """CPU time of processes, all their threads, user and system. None where one of them is gone."""
    try:
        # What clock_getcpuclockid(3) gives; /proc/PID/stat counts in steps of 10 ms, which are many calls.
        return sum(time.clock_gettime_ns((~pid << 3) | _PROCESS_CLOCK) for pid in processes) / 1e9
    except OSError:
        return None


def peak_memory(processes: list[int]) -> int | None:
    """The most bytes that processes had resident since they started (VmHWM), shared memory and libraries included; None if one is gone."""
    total = 0
    for pid in processes:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return None
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return total


def resident_here() -> int:
    """Bytes that this process has resident now."""
    return int(psutil.Process(os.getpid()).memory_info().rss)
