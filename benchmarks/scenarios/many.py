"""32 workers of which one is called: what do the 31 idle ones cost it, and the machine?"""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
import psutil

import opexec
from benchmarks.processes import cpu_seconds
from benchmarks.ratios import Spread, percentiles
from benchmarks.scenarios import loops, opened
from benchmarks.scenarios.result import Bar, Found, Settings, text

WORKERS, QUICK_WORKERS = 32, 6
_BLOCKS = 5


def measure(settings: Settings) -> Found:
    count = QUICK_WORKERS if settings.quick else WORKERS
    rounds = 2 if settings.quick else 3
    alone, beside = "1 worker", f"{count} workers, one of them called"
    p50s: dict[str, list[float]] = {alone: [], beside: []}
    p99s: dict[str, list[float]] = {alone: [], beside: []}
    idle, memory, loading = [], [], []
    x = np.arange(16, dtype=np.float32)
    for number in range(rounds):
        settings.step(f"many: round {number + 1} of {rounds}")
        with ExitStack() as stack:
            model = stack.enter_context(opened.load("echo"))
            _measured(model, x, settings, p50s[alone], p99s[alone])
            begin = time.perf_counter()
            others = [stack.enter_context(opened.load("echo", wait_ready=False)) for _ in range(count - 1)]
            for other in others:
                other.wait_ready()
                _check(other, x)
            loading.append((time.perf_counter() - begin) / len(others))
            _measured(model, x, settings, p50s[beside], p99s[beside])
            pids = [worker.pid for other in others for worker in other.workers if worker.pid is not None]
            before, since = sum(map(cpu_seconds, pids)), time.perf_counter()
            time.sleep(max(1.0, settings.seconds))
            used = sum(map(cpu_seconds, pids)) - before
            idle.append(100 * used / (time.perf_counter() - since))
            memory.append(sum(psutil.Process(pid).memory_info().rss for pid in pids) / len(pids) / 2**20)
        # Once more without them, so that drift counts for both.
        with opened.load("echo") as model:
            _measured(model, x, settings, p50s[alone], p99s[alone])
    spreads = {name: (Spread.of(p50s[name]), Spread.of(p99s[name])) for name in p50s}
    ratio = spreads[beside][0].median / spreads[alone][0].median
    return Found(
        title=f"{count} workers, one of them busy",
        question=f"How long does a 64 B call take while {count - 1} other models are loaded and idle?",
        heads=("", "p50, µs", "p99, µs"),
        rows=[(name, text(p50), text(p99)) for name, (p50, p99) in spreads.items()],
        bars=[
            Bar.of(name, "opexec" if name == beside else "in process", p50)
            for name, (p50, _) in spreads.items()
        ],
        axis="p50 of a 64 B call, µs",
        notes=[
            f"p50 with the others against without: {ratio:.3g} x.",
            f"The {count - 1} idle workers together use {np.median(idle):.3g} % of a core, each has {np.median(memory):.3g} MiB in memory "
            f"(pages that they share counted for each), and loading them all at once takes {np.median(loading):.3g} s a worker.",
        ],
        rounds={
            **{f"p50 {name}": found for name, found in p50s.items()},
            "idle, % of a core": idle,
            "memory of a worker, MiB": memory,
            "loading, s a worker": loading,
        },
    )


def _measured(
    model: opexec.Model, x: np.ndarray, settings: Settings, p50s: list[float], p99s: list[float]
) -> None:
    _check(model, x)
    for _ in range(_BLOCKS):
        with loops.no_collector():
            found = percentiles(loops.durations(lambda: model.infer({"x": x}), settings.seconds / _BLOCKS))
        p50s.append(found["p50"] / 1e3)
        p99s.append(found["p99"] / 1e3)


def _check(model: opexec.Model, x: np.ndarray) -> None:
    if not np.array_equal(model.infer({"x": x})["y"], x):
        raise ValueError("the model did not give its input back")
