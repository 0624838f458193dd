"""How much processor time each contender uses while nobody calls it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

from benchmarks.contender import REGISTRY, Unavailable, Unsupported
from benchmarks.driver_process import ContenderFailed, Drivers
from benchmarks.grid import BUSY, SMALLEST, Case, Settings
from benchmarks.processes import cpu_seconds


@dataclass(frozen=True)
class IdleCpu:
    """Percent of one core over `seconds`.

    What the model's side used, counted in ticks (`psutil`) and by the clocks of its processes, which count nanoseconds;
    and what the caller's process used by its clock.
    """

    contender: str
    seconds: float
    partner_percent: float
    partner_percent_by_clock: float
    caller_percent: float


def contenders_of(cases: Iterable[Case]) -> list[str]:
    """Those that answer from another process, in the registry's order, without what is heavy."""
    measured = {case.contender for case in cases}
    chosen = [
        name
        for name, entry in REGISTRY.items()
        if entry.kind in ("opexec", "peer") and not entry.heavy and name in measured
    ]
    return [name for name in chosen if name != "opexec-load"]


def measure_idle(
    contenders: Sequence[str],
    drivers: Drivers,
    settings: Settings,
    sleep: Callable[[float], None] = time.sleep,
) -> list[IdleCpu]:
    """Open all, call each, then watch them through one stretch without a call. Those that fail are left out."""
    opened = []
    for name in contenders:
        try:
            drivers.open(name, name, SMALLEST)
            drivers.measure(name, settings.floor_plans[BUSY])
        except (Unavailable, Unsupported, ContenderFailed):
            continue
        opened.append(name)
    callers = {name: [process] for name in opened if (process := drivers.seats[name].process)}
    partners = {name: drivers.seats[name].descendants() for name in opened}
    before = {name: (_Used.by(partners[name]), _Used.by(callers[name])) for name in opened}
    start = time.monotonic()
    sleep(settings.idle_seconds)
    found = []
    for name in opened:
        seconds = time.monotonic() - start
        partner, caller = _Used.by(partners[name]), _Used.by(callers[name])
        partner_before, caller_before = before[name]
        found.append(
            IdleCpu(
                name,
                seconds,
                100 * (partner.ticks - partner_before.ticks) / seconds,
                100 * (partner.clock - partner_before.clock) / seconds,
                100 * (caller.clock - caller_before.clock) / seconds,
            )
        )
    for name in opened:
        drivers.close(name)
    return found


@dataclass(frozen=True)
class _Used:
    """Seconds of processor time."""

    ticks: float
    clock: float

    @classmethod
    def by(cls, processes: Iterable[psutil.Process]) -> _Used:
        ticks = clock = 0.0
        for process in processes:
            times = process.cpu_times()
            ticks += times.user + times.system
            clock += cpu_seconds(process.pid)
        return cls(ticks, clock)
