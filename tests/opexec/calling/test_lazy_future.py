"""A Future without a lock until somebody needs it: at every step of its end another thread may come to ask."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, InvalidStateError
from types import FrameType
from typing import Any

import pytest

from opexec.calling.lazy_future import LazyFuture

PATIENCE = 60.0
ERROR = ValueError("it went wrong")


def finish_well(future: LazyFuture[int]) -> None:
    future.finish(7)


def finish_badly(future: LazyFuture[int]) -> None:
    future.finish(None, ERROR)


def outcome(future: concurrent.futures.Future[int]) -> Any:
    return future.exception(PATIENCE) or future.result(PATIENCE)


def calls_back(future: LazyFuture[int]) -> Any:
    told: list[Any] = []
    came = threading.Event()
    future.add_done_callback(lambda done: (told.append(outcome(done)), came.set()))
    assert came.wait(PATIENCE)
    assert len(told) == 1
    return told[0]


def waits(future: LazyFuture[int], when: str) -> Any:
    other: LazyFuture[int] = LazyFuture()
    other.finish(1)
    done, rest = concurrent.futures.wait([future, other], PATIENCE, when)
    assert other in done and done | rest == {future, other}
    return outcome(future)


def first_of_them(future: LazyFuture[int]) -> Any:
    (done,) = concurrent.futures.as_completed([future], PATIENCE)
    return outcome(done)


def looks_first(future: LazyFuture[int]) -> Any:
    assert future.running() is future.cancelled() is False
    return outcome(future) if future.done() else calls_back(future)


ASKING: list[Callable[[LazyFuture[int]], Any]] = [
    outcome,
    lambda future: future.result(PATIENCE) if future.exception(PATIENCE) is None else ERROR,
    calls_back,
    lambda future: waits(future, ALL_COMPLETED),
    lambda future: waits(future, FIRST_COMPLETED),
    first_of_them,
    looks_first,
]


@pytest.mark.parametrize("asks", ASKING, ids=range(len(ASKING)))
@pytest.mark.parametrize(("finish", "expected"), [(finish_well, 7), (finish_badly, ERROR)])
def test_who_asks_at_any_step_of_the_end_is_told(
    asks: Callable[[LazyFuture[int]], Any], finish: Callable[[LazyFuture[int]], None], expected: object
) -> None:
    for step in itertools.count():
        future: LazyFuture[int] = LazyFuture()
        found: list[Any] = []
        thread = threading.Thread(target=lambda f=future, found=found: found.append(asks(f)))
        with at_step(step, lambda f=future, t=thread: come(f, t)) as steps:
            finish(future)
        if not steps.came:
            assert step > 5, "it was not traced"
            thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert found == [expected], f"at step {step}"
        assert future.done() and not future.cancelled() and not future.running()
        if not steps.came:
            return


def come(future: LazyFuture[int], thread: threading.Thread) -> None:
    """Start the thread, and go on when it sleeps or is through."""
    thread.start()
    while thread.is_alive():
        lock = future.__dict__.get("_lock")
        if isinstance(lock, threading.Condition) and (
            lock._waiters or future._waiters or future._done_callbacks
        ):  # type: ignore[attr-defined]
            return
        time.sleep(0)


class Steps:
    came = False


@contextlib.contextmanager
def at_step(number: int, do: Callable[[], None]) -> Iterator[Steps]:
    """Run `do` before the step with that number of `LazyFuture.finish`: every operation of the interpreter is one."""
    steps = Steps()
    left = [number]

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code is not LazyFuture.finish.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not steps.came:
            left[0] -= 1
            if left[0] < 0:
                steps.came = True
                do()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield steps
    finally:
        sys.settrace(before)


def test_an_end_that_is_interrupted_at_any_step_can_be_finished() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for step in itertools.count():
        future: LazyFuture[int] = LazyFuture()
        with at_step(step, interrupt) as steps:
            try:
                future.finish(7)
            except KeyboardInterrupt:
                if not future.done():
                    future.finish(None, ERROR)
        assert outcome(future) in (7, ERROR)
        if not steps.came:
            assert step > 5
            return


def test_one_that_was_cancelled_has_no_outcome() -> None:
    future: LazyFuture[int] = LazyFuture()
    assert future.cancel() and future.cancelled() and future.done()
    with pytest.raises(InvalidStateError):
        future.finish(7)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()


def test_a_second_outcome_is_refused() -> None:
    future: LazyFuture[int] = LazyFuture()
    future.finish(7)
    with pytest.raises(InvalidStateError):
        future.finish(8)
    assert future.result() == 7 and not future.cancel() and "int" in repr(future)


def test_one_without_an_outcome_times_out() -> None:
    future: LazyFuture[int] = LazyFuture()
    assert not future.done() and "pending" in repr(future)
    for ask in (future.result, future.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            ask(0)
    assert concurrent.futures.wait([future], 0).not_done == {future}


def test_it_makes_no_lock_where_one_thread_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Condition", None)
    future: LazyFuture[int] = LazyFuture()
    future.finish(7)
    assert future.done() and future.result() == 7
