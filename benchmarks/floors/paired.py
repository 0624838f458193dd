"""What floors of two processes that look at a word have in common: a core for each while they are measured."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from benchmarks import processes
from benchmarks.contender import Contender, Options


class Paired(Contender):
    """While measured, caller and partner are bound to a core each, where there are two.

    Sharing one, a spinning side would wait for the other's time slice to end, some 8 ms, and a yielding one for a
    switch. The scheduler tells them apart in the end, but a floor must not depend on when.
    """

    _partner: int

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._usable = os.sched_getaffinity(0)
        self._cores = two_cores(self._usable)

    def _start(self, serve: Callable[[], None]) -> None:
        self._partner = processes.fork(serve)
        if self._cores:
            os.sched_setaffinity(self._partner, {self._cores[1]})

    def wake(self) -> None:
        if self._cores:
            os.sched_setaffinity(0, {self._cores[0]})

    def park(self) -> None:
        os.sched_setaffinity(0, self._usable)

    def close(self) -> None:
        processes.end(self._partner)


def two_cores(usable: set[int]) -> tuple[int, int] | None:
    """Two usable processors, of different physical cores where the machine has them; None if there is only one."""
    first, *others = sorted(usable)
    if not others:
        return None
    siblings = Path(f"/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list")
    shared = parse_cpus(siblings.read_text()) if siblings.exists() else {first}
    return first, next((cpu for cpu in others if cpu not in shared), others[0])


def parse_cpus(text: str) -> set[int]:
    """The kernel's list format: ``0,2-3``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found
