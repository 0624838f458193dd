"""Making calls and timing them: in a closed loop, in an open one, and after idling.

Closed: each caller makes its next call when it has the answer to the last. That tells how fast calls can be; but a stall of the model
stops the callers too, and counts as one slow call however long it is.

Open: calls are due at a fixed rate, and a call's latency counts from when it was due, not from when a caller got round to it. So a stall
is felt by every call that came due meanwhile, as users of a service feel it. (The closed loop's omission of them is what Gil Tene
called coordinated omission; this is the remedy of his wrk2.) Calls that were still to be made when the loop was given up count with the time
they have waited by then.
"""

from __future__ import annotations

import itertools
import threading
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[Mapping[str, Any]], object]

_LEAST_CALLS = 3
_SPIN_NS = 150_000
"""So long before a call is due its caller stops sleeping, which is not that exact."""
_GIVEN_UP = 5
"""An open loop ends after so many times its length, due calls or not."""


@dataclass(frozen=True)
class Timed:
    """What one loop gave."""

    nanoseconds: np.ndarray[Any, Any]
    """Of each call; in an open loop from when it was due."""
    elapsed: float
    """Seconds of the loop."""
    made: int
    """Calls that were answered. Less than there are times where an open loop was given up."""
    waiting: float = 0.0
    """Seconds of CPU time that callers of an open loop spent waiting for the next call to be due."""


def closed(
    call: Call, inputs: Mapping[str, Any], callers: int, seconds: float, least: int = _LEAST_CALLS
) -> Timed:
    """So many callers, each in a thread of its own, call one after another for so long, and `least` times each at least.

    Raises what the first call that fails raises.
    """
    clock = time.perf_counter_ns

    def loop(taken: array[int], end: int) -> None:
        add = taken.append
        while clock() < end or len(taken) < least:
            start = clock()
            call(inputs)
            add(clock() - start)

    def caller(taken: array[int], begin: int) -> None:
        loop(taken, begin + int(seconds * 1e9))

    taken, elapsed = _together(caller, callers)
    return Timed(taken, elapsed, len(taken))


def open_at(call: Call, inputs: Mapping[str, Any], callers: int, rate: float, seconds: float) -> Timed:
    """`rate` calls a second for so long, made by whichever of the callers is free; one call at least.

    Raises what the first call that fails raises.
    """
    clock, sleep = time.perf_counter_ns, time.sleep
    count, period = max(round(rate * seconds), 1), 1e9 / rate
    numbers = itertools.count()
    spun: list[int] = []
    made: list[int] = []

    def caller(taken: array[int], begin: int) -> None:
        waited = done = 0
        give_up = begin + int(max(seconds, count / rate) * _GIVEN_UP * 1e9)
        while (number := next(numbers)) < count:
            due = begin + int(number * period)
            now = clock()
            if due - now > _SPIN_NS:
                sleep((due - now - _SPIN_NS) / 1e9)
                now = clock()
            if now < due:
                before = now
                while now < due:
                    now = clock()
                waited += now - before
            if now < give_up:
                call(inputs)
                done += 1
                now = clock()
            taken.append(now - due)
        spun.append(waited)
        made.append(done)

    taken, elapsed = _together(caller, callers)
    return Timed(taken, elapsed, sum(made), sum(spun) / 1e9)


def after_idle(call: Call, inputs: Mapping[str, Any], pause: float, count: int) -> np.ndarray[Any, Any]:
    """Nanoseconds of calls with a pause before each."""
    taken = array("q")
    for _ in range(count):
        time.sleep(pause)
        start = time.perf_counter_ns()
        call(inputs)
        taken.append(time.perf_counter_ns() - start)
    return np.array(taken, np.int64)


def _together(caller: Callable[[array[int], int], None], count: int) -> tuple[np.ndarray[Any, Any], float]:
    """All times, and the seconds from the common begin to the last one's end. One caller alone is this thread."""
    times: list[array[int]] = [array("q") for _ in range(count)]
    if count == 1:
        begin = time.perf_counter_ns()
        caller(times[0], begin)
        return np.array(times[0], np.int64), (time.perf_counter_ns() - begin) / 1e9
    failures: list[BaseException] = []
    begin = 0

    def start() -> None:
        nonlocal begin
        begin = time.perf_counter_ns()

    ready = threading.Barrier(count, start)

    def run(taken: array[int]) -> None:
        try:
            ready.wait()
            caller(taken, begin)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(taken,), name=f"opexec-bench-{number}", daemon=True)
        for number, taken in enumerate(times)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = (time.perf_counter_ns() - begin) / 1e9
    if failures:
        raise failures[0]
    return np.concatenate([np.array(taken, np.int64) for taken in times]), elapsed
