"""Latency histograms: right within their resolution, fair to calls that are timed rarely, and never in a call's way."""

from __future__ import annotations

import math
import os
import random
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opexec.connection.timing import CallTimes, Sampler
from opexec.metrics.latency import BOUNDS, STAGES, Latency


def times(*spans: int, began: int = 1_000_000) -> CallTimes:
    """A call whose seven stages took so many nanoseconds."""
    moments = [began]
    for span in spans:
        moments.append(moments[-1] + span)
    return CallTimes(*moments)


def of(total_ns: list[int], stand_for: list[int] | None = None) -> Latency:
    sampler = Sampler()
    latency = Latency(sampler)
    for total, calls in zip(total_ns, stand_for or [1] * len(total_ns), strict=True):
        sampler.add(times(0, 0, 0, total, 0, 0, 0), calls)
    return latency


def test_stages_are_those_of_a_call() -> None:
    sampler = Sampler()
    latency = Latency(sampler)
    assert latency.summaries() == {} and latency.buckets() == {}
    spans = [4_000_000 * number for number in range(1, 8)]
    one = times(*spans)
    assert tuple(one.stages) == STAGES
    sampler.add(one)
    for stage, summary in latency.summaries().items():
        took = one.stages[stage] / 1e9
        assert (summary.count, summary.mean, summary.max) == (1, took, took)
        assert summary.p50 == summary.p99 == summary.p999 == took


@given(st.lists(st.integers(3_000_001, 10**13), min_size=1, max_size=300))
def test_percentiles_are_at_most_two_percent_too_high(totals: list[int]) -> None:
    summary = of(totals).summaries()["total"]
    ordered = sorted(totals)
    assert summary.count == len(totals)
    assert summary.max == ordered[-1] / 1e9
    assert math.isclose(summary.mean, sum(totals) / len(totals) / 1e9, rel_tol=1e-9)
    for share, found in ((0.5, summary.p50), (0.9, summary.p90), (0.99, summary.p99), (0.999, summary.p999)):
        exact = ordered[max(math.ceil(share * len(totals)), 1) - 1] / 1e9
        if exact < 1000:  # what is longer than the last bound is as the longest
            assert exact <= found * (1 + 1e-12) and found <= exact * 1.02
        else:
            assert found == summary.max


@given(st.lists(st.tuples(st.integers(1, 10**12), st.integers(1, 256)), min_size=1, max_size=100))
def test_buckets_count_what_is_up_to_their_bound(calls: list[tuple[int, int]]) -> None:
    totals, weights = [total for total, _ in calls], [stands_for for _, stands_for in calls]
    latency = of(totals, weights)
    sampled = latency.buckets()["total"]
    assert sampled.count == sum(weights)
    assert len(sampled.up_to) == len(BOUNDS)
    for bound, count in zip(BOUNDS, sampled.up_to):
        exact = sum(weight for total, weight in zip(totals, weights) if total <= round(bound * 1e9))
        assert count == exact
    assert sampled.up_to == latency.buckets()["total"].up_to, "looking changes nothing"


def test_a_timed_call_stands_for_those_left_out_before_it() -> None:
    """One call in ten takes 20 ms, the others 30 us: after a short one many are left out, after a long one none."""
    random.seed(3)
    sampler = Sampler()
    latency = Latency(sampler)
    long, waiting, left_out, calls = 0, 0, 0, 200_000
    for _ in range(calls):
        took = 20_000_000 if random.random() < 0.1 else 30_000
        long += took == 20_000_000
        if waiting:
            waiting -= 1
            continue
        stands_for, waiting = 1 + left_out, sampler.left_out
        left_out = waiting
        sampler.add(times(0, 0, 0, took, 0, 0, 0), stands_for)
        if len(sampler.times) > 1000:
            latency.summaries()
    found = latency.buckets()["total"]
    share = 1 - found.up_to[BOUNDS.index(0.001)] / found.count
    assert found.count == pytest.approx(calls, rel=0.01)
    assert share == pytest.approx(long / calls, rel=0.15)
    assert found.seconds == pytest.approx(long * 0.02 + (calls - long) * 30e-6, rel=0.15)


def test_many_threads_read_while_calls_are_timed() -> None:
    sampler = Sampler()
    latency = Latency(sampler)
    stop, failures = threading.Event(), []

    def read() -> None:
        try:
            while not stop.is_set():
                latency.summaries()
                latency.buckets()
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for _ in range(3000):
        sampler.add(times(0, 0, 0, 4_000_000, 0, 0, 0))
    stop.set()
    for thread in readers:
        thread.join()
    assert not failures
    assert latency.summaries()["total"].count == 3000


def test_memory_is_bounded_though_nobody_reads() -> None:
    sampler = Sampler()
    latency = Latency(sampler)
    for number in range(10_000):
        sampler.add(times(0, 0, 0, 4_000_000 + number, 0, 0, 0))
    assert latency.summaries()["total"].count == sampler.times.maxlen


def test_a_copy_forked_while_somebody_reads_can_read() -> None:
    latency = of([4_000_000])
    with latency._lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            os._exit(0 if latency.summaries()["total"].count == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
