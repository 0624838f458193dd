"""Calls are counted and timed as the plan says."""

from __future__ import annotations

from benchmarks import sampling
from benchmarks.sampling import Plan


def test_warm_calls_do_not_count():
    calls = []
    samples = sampling.sample(calls.append, {}, Plan(budget_ns=0, warm_ns=0, warm_least=4, least=3))
    assert len(samples) == 3
    assert len(calls) == 7


def test_a_long_budget_ends_at_the_most_calls():
    calls = []
    samples = sampling.sample(calls.append, {}, Plan(budget_ns=10**15, warm_ns=0, warm_least=0, most=50))
    assert len(samples) == len(calls) == 50


def test_every_result_goes_to_after_call_before_the_next_call():
    events = []

    def call(inputs):
        events.append("call")
        return len(events)

    def after(result):
        events.append(result)

    sampling.sample(call, {}, Plan(budget_ns=0, warm_ns=0, warm_least=1, least=2), after)
    assert events == ["call", 1, "call", 3, "call", 5]


def test_a_pause_is_not_part_of_the_call(monkeypatch):
    now = [0]
    monkeypatch.setattr(sampling.time, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(
        sampling.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + round(seconds * 1e9))
    )

    def call(inputs):
        now[0] += 700

    samples = sampling.sample(
        call, {}, Plan(budget_ns=18_000_000, warm_ns=0, warm_least=0, pause_ns=5_000_000)
    )
    assert samples.tolist() == [700, 700, 700, 700]


def test_the_cost_of_timing_is_what_a_call_of_nothing_shows(monkeypatch):
    ticks = iter(range(0, 10**9, 40))
    monkeypatch.setattr(sampling.time, "perf_counter_ns", lambda: next(ticks))
    assert sampling.overhead() == 40
