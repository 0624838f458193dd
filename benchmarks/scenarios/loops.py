"""Loops that several scenarios need: calls counted over a stretch of time, by one thread or more."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt


@contextmanager
def no_collector() -> Iterator[None]:
    """The garbage collector is off meanwhile, as it is on the model's side."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def durations(call: Callable[[], object], seconds: float, least: int = 3) -> npt.NDArray[np.int64]:
    """Nanoseconds of each call, one after another, for so long; the first is not counted."""
    call()
    clock = time.perf_counter_ns
    taken: list[int] = []
    end = clock() + int(seconds * 1e9)
    while clock() < end or len(taken) < least:
        begin = clock()
        call()
        taken.append(clock() - begin)
    return np.array(taken, np.int64)


def rate(calls: Sequence[Callable[[], object]], seconds: float) -> float:
    """Calls a second of all together, each in a thread of its own, in which it is called one after another."""
    for call in calls:
        call()
    counts = [0] * len(calls)
    spans = [0.0] * len(calls)
    begin = threading.Barrier(len(calls))
    failures: list[BaseException] = []

    def run(index: int, call: Callable[[], object]) -> None:
        try:
            begin.wait()
            start = time.perf_counter()
            while time.perf_counter() - start < seconds:
                call()
                counts[index] += 1
            spans[index] = time.perf_counter() - start
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(index, call), daemon=True) for index, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(count / span for count, span in zip(counts, spans, strict=True))


@contextmanager
def beside(call: Callable[[], object]) -> Iterator[None]:
    """`call` is called again and again in another thread meanwhile. What it raises is raised at the end."""
    stop = threading.Event()
    started = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                call()
                started.set()
        except BaseException as error:
            failures.append(error)
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
