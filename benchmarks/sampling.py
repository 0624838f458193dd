"""Times single calls, one clock reading before and one after each.

Needs nothing but numpy and Python >= 3.7: benchmarks/frameworks/in_process.py times calls with it where the models' frameworks are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from benchmarks.contender import Call
    from benchmarks.workloads import Inputs

    Samples = npt.NDArray[np.int64]
else:
    Samples = np.ndarray
_OVERHEAD_SAMPLES = 5_000


@dataclass(frozen=True)
class Plan:
    """How to call: first for `warm_ns` without counting, then until `budget_ns` is spent.

    At least `least` and at most `most` calls count; the caller sleeps `pause_ns` before each.
    """

    budget_ns: int
    warm_ns: int = 5_000_000
    warm_least: int = 1
    least: int = 3
    most: int = 5_000
    pause_ns: int = 0


def sample(
    call: Call, inputs: Inputs, plan: Plan, after_call: Callable[[Any], None] | None = None
) -> Samples:
    """Nanoseconds of each call, dropping its result included, raw: `overhead` is still in them."""
    _call_until(call, inputs, plan, plan.warm_ns, plan.warm_least, plan.most, after_call)
    taken = _call_until(call, inputs, plan, plan.budget_ns, plan.least, plan.most, after_call)
    return np.array(taken, np.int64)


def stream(
    send: Callable[[Inputs], Any], receive: Callable[[Any], Any], inputs: Inputs, calls: int, window: int
) -> tuple[int, Any]:
    """Nanoseconds that `calls` calls take with at most `window` under way, and the last answer. A tenth as many come before, uncounted."""
    taken, last = 0, None
    for count in (calls // 10, calls):
        tickets: deque[Any] = deque()
        begin = time.perf_counter_ns()
        for _ in range(count):
            if len(tickets) == window:
                last = receive(tickets.popleft())
            tickets.append(send(inputs))
        while tickets:
            last = receive(tickets.popleft())
        taken = time.perf_counter_ns() - begin
    return taken, last


def overhead() -> int:
    """Nanoseconds that `sample` sees where nothing happens: the median over calls of an empty function."""

    def nothing(inputs: Inputs) -> None:
        pass

    plan = Plan(budget_ns=10**9, most=_OVERHEAD_SAMPLES)
    return int(np.median(sample(nothing, {}, plan)))


def _call_until(
    call: Call,
    inputs: Inputs,
    plan: Plan,
    budget_ns: int,
    least: int,
    most: int,
    after_call: Callable[[Any], None] | None,
) -> list[int]:
    clock, sleep, pause = time.perf_counter_ns, time.sleep, plan.pause_ns / 1e9
    taken: list[int] = []
    add = taken.append
    deadline = clock() + budget_ns
    if after_call is not None:
        while len(taken) < least or (len(taken) < most and clock() < deadline):
            start = clock()
            result = call(inputs)
            end = clock()
            add(end - start)
            after_call(result)
            del result
    elif pause:
        while len(taken) < least or (len(taken) < most and clock() < deadline):
            sleep(pause)
            start = clock()
            call(inputs)
            end = clock()
            add(end - start)
    else:
        while len(taken) < least or (len(taken) < most and clock() < deadline):
            start = clock()
            call(inputs)
            end = clock()
            add(end - start)
    return taken
