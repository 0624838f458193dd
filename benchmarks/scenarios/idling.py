"""A small call after 5 ms of idling, beside the least that it could be: what of its time is opexec's, and what is the machine's."""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np

from benchmarks.contender import Options
from benchmarks.floors.asleep import Asleep
from benchmarks.floors.eventfd import Eventfd
from benchmarks.grid import IDLE_PAUSE_NS, SMALLEST
from benchmarks.peers.pipe_bytes import PipeBytes
from benchmarks.ratios import Spread
from benchmarks.scenarios import loops, opened
from benchmarks.scenarios.result import Bar, Found, Settings, text
from opexec import Environment

WORKER_PYTHON = "3.13" if platform.python_version_tuple()[:2] != ("3", "13") else "3.12"

_E, _PIPE = "E: eventfds, to a fork", "Pipe with raw bytes, to a fork"
_FORK, _OTHER = "the least call, to a fork", f"the least call, to Python {WORKER_PYTHON}"
_SAME, _OPEXEC = "opexec, to the caller's own Python", f"opexec, to Python {WORKER_PYTHON}"
_GROUPS = {
    _E: "the least",
    _PIPE: "peer",
    _FORK: "the least",
    _OTHER: "the least",
    _SAME: "opexec",
    _OPEXEC: "opexec",
}


def measure(settings: Settings) -> Found:
    x = {"x": np.arange(16, dtype=np.float32)}
    other = Environment(WORKER_PYTHON, ["numpy"])
    idle: dict[str, list[float]] = {name: [] for name in _GROUPS}
    busy: dict[str, list[float]] = {name: [] for name in _GROUPS}
    order = random.Random(0)
    with ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {}
        # Forks come first: they would keep what is opened later.
        for name, contender in ((_E, Eventfd(Options(""))), (_PIPE, PipeBytes(Options("")))):
            call = contender.setup(SMALLEST)
            stack.callback(contender.close)
            calls[name] = partial(call, x)
        for name, interpreter in ((_FORK, None), (_OTHER, other.resolve())):
            floor = Asleep(interpreter)
            stack.callback(floor.close)
            calls[name] = partial(floor.call(), x)
        for name, environment in ((_SAME, None), (_OPEXEC, other)):
            model = stack.enter_context(opened.load("echo", env=environment))
            calls[name] = partial(model.infer, x)
        for name, one in calls.items():
            answer = one()
            if isinstance(answer, dict):
                answer = answer["y"]
            if name != _E and not np.array_equal(np.asarray(answer).view(np.float32), x["x"]):
                raise ValueError(f"{name}: the model did not give its input back")
        for number in range(settings.rounds):
            settings.step(f"idling: round {number + 1} of {settings.rounds}")
            with loops.no_collector():
                for name in order.sample(list(calls), len(calls)):
                    idle[name].append(_p50(calls[name], settings.seconds))
                    busy[name].append(float(np.median(loops.durations(calls[name], settings.seconds / 4))))
    return _told(idle, busy)


def _p50(call: Callable[[], object], seconds: float) -> float:
    """Nanoseconds, of calls after 5 ms of sleep each."""
    clock = time.perf_counter_ns
    taken: list[int] = []
    end = clock() + int(seconds * 1e9)
    while clock() < end or len(taken) < 3:
        time.sleep(IDLE_PAUSE_NS / 1e9)
        begin = clock()
        call()
        taken.append(clock() - begin)
    return float(np.median(taken[1:]))


def _told(idle: dict[str, list[float]], busy: dict[str, list[float]]) -> Found:
    def over(name: str, unit: str, figures: dict[str, list[float]]) -> str:
        return text(Spread.of([a / b for a, b in zip(figures[name], figures[unit], strict=True)]))

    spreads = {name: Spread.of([one / 1e3 for one in found]) for name, found in idle.items()}
    return Found(
        title="A small call after idling",
        question="How much of a 64 B call after 5 ms of idling would any call in Python take?",
        heads=("call", "µs after idling", "of E after idling", "of the least call", "µs without a pause"),
        rows=[
            (
                name,
                text(spreads[name]),
                over(name, _E, idle),
                over(name, _OTHER, idle),
                text(Spread.of([one / 1e3 for one in busy[name]])),
            )
            for name in _GROUPS
        ],
        bars=[Bar.of(name, _GROUPS[name], spreads[name]) for name in _GROUPS],
        axis="µs",
        notes=[
            "The least call copies 64 B there and back, with a record each way, a lock, an array and a lease, and blocks on an eventfd: what no "
            "call can be without that is to be safe and whose answer is to last. Both sides sleep, so nothing is gained by looking.",
            "A fork shares code and data with its parent, so that each of them warms the processor's caches for the other. A worker of another Python shares nothing.",
        ],
        rounds={**idle, **{f"{name}, without a pause": found for name, found in busy.items()}},
    )
