"""Closed and open loops: on a clock that only sleeps and calls move on, and on a real model that stalls once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import opexec
from opexec.bench import loops
from tests import slow_models

MS = 1_000_000
SOURCE = f"{slow_models.__file__}:stalling_once"


class Clock:
    """What `loops` knows as the module time. Looking at it takes a microsecond, so that spinning ends."""

    def __init__(self) -> None:
        self.now = 0

    def perf_counter_ns(self) -> int:
        self.now += 1_000
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loops, "time", clock)
    return clock


def server(clock: Clock, service: Callable[[int], int]) -> Callable[[Mapping[str, Any]], None]:
    """A model whose nth call, from 0 on, takes `service(n)` nanoseconds."""
    calls: list[int] = []

    def call(inputs: Mapping[str, Any]) -> None:
        clock.now += service(len(calls))
        calls.append(1)

    return call


def stall(number: int) -> int:
    return 500 * MS if number == 20 else 1 * MS


def test_a_closed_loop_omits_what_a_stall_holds_up(clock: Clock) -> None:
    timed = loops.closed(server(clock, stall), {}, 1, 1.0)
    slow = timed.nanoseconds > 2 * MS
    assert int(slow.sum()) == 1 and timed.made == len(timed.nanoseconds) > 400


def test_an_open_loop_counts_from_when_calls_were_due(clock: Clock) -> None:
    timed = loops.open_at(server(clock, stall), {}, 1, 100.0, 1.0)
    assert timed.made == len(timed.nanoseconds) == 100
    late = np.sort(timed.nanoseconds)[::-1] / MS
    # Due every 10 ms and served in 1 ms: behind a stall of 500 ms each next call has waited 9 ms less.
    held_up = late[late > 5]
    assert len(held_up) == pytest.approx(500 / 9, abs=2)
    assert held_up[:3] == pytest.approx([500, 491, 482], abs=1.5)
    assert late[-1] == pytest.approx(1, abs=0.1)


def test_waiting_for_calls_to_be_due_is_not_called_cpu_time_of_calls(clock: Clock) -> None:
    timed = loops.open_at(server(clock, lambda number: 1 * MS), {}, 1, 100.0, 1.0)
    assert 0 < timed.waiting < 100 * 0.0002


def test_an_open_loop_that_cannot_keep_up_is_given_up_and_says_so(clock: Clock) -> None:
    timed = loops.open_at(server(clock, lambda number: 100 * MS), {}, 1, 100.0, 1.0)
    assert timed.made == pytest.approx(50, abs=2)  # in five times its second
    assert len(timed.nanoseconds) == 100
    assert timed.elapsed == pytest.approx(5, abs=0.2)
    # The last one was due after 0.99 s, and has waited until it was given up.
    assert timed.nanoseconds[-1] / MS == pytest.approx(4010, abs=150)


def test_a_closed_loop_makes_three_calls_however_long_they_take(clock: Clock) -> None:
    assert len(loops.closed(server(clock, lambda number: 5000 * MS), {}, 1, 0.001).nanoseconds) == 3


def test_after_idle_pauses_are_not_in_the_times(clock: Clock) -> None:
    found = loops.after_idle(server(clock, lambda number: 2 * MS), {}, 0.25, 4)
    assert found / MS == pytest.approx([2] * 4, abs=0.1) and clock.now > 1000 * MS


def test_callers_call_at_the_same_time() -> None:
    inside: list[int] = []
    all_inside = threading.Event()

    def call(inputs: Mapping[str, Any]) -> None:
        inside.append(1)
        if len(inside) == 3:
            all_inside.set()
        assert all_inside.wait(100)

    timed = loops.closed(call, {}, 3, 0.001)
    assert timed.made == len(timed.nanoseconds) == len(inside) >= 9


def test_every_call_that_is_due_is_made_once_by_some_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_GIVEN_UP", 1000)  # not on a busy machine either
    seen: list[int] = []
    timed = loops.open_at(lambda inputs: seen.append(1), {}, 4, 2000.0, 0.05)
    assert len(seen) == timed.made == len(timed.nanoseconds) == 100


@pytest.mark.parametrize("callers", [1, 3])
def test_what_a_call_raises_comes_out(callers: int) -> None:
    def fail(inputs: Mapping[str, Any]) -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        loops.closed(fail, {}, callers, 0.01)


def test_a_model_that_stalls_once_is_seen_by_the_open_loop_alone() -> None:
    x = {"x": np.zeros(4, np.float32)}
    half = slow_models.STALL_SECONDS / 2 * 1e9
    with opexec.load(SOURCE) as first, opexec.load(SOURCE) as second:
        closed = loops.closed(first.infer, x, 1, 0.6, least=slow_models.STALL_AT)
        opened = loops.open_at(second.infer, x, 1, 200.0, 0.6)
    assert closed.nanoseconds.max() > 2 * half and opened.nanoseconds.max() > 2 * half
    # 60 calls come due during the stall, half of them in its first half.
    assert int((closed.nanoseconds > half).sum()) < 5
    assert int((opened.nanoseconds > half).sum()) >= 25
