"""Timed calls: each step of a call has its moment, in order, whatever the worker says; and few calls are timed where calls are short."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import opexec
from opexec.connection.timing import CallTimes, Sampler, assembled
from opexec.isolated import IsolatedModel
from tests.loaded import source

X = {"x": np.arange(4, dtype=np.float32)}


@pytest.fixture(scope="module")
def model() -> Iterator[IsolatedModel]:
    with opexec.load(source("echo")) as loaded:
        assert isinstance(loaded, IsolatedModel)
        yield loaded


def in_order(times: CallTimes) -> bool:
    return all(a <= b for a, b in itertools.pairwise(times))


def test_the_steps_of_one_call_follow_each_other(model: IsolatedModel) -> None:
    result, times = model.infer_timed(X)
    assert set(result) == set(model.infer(X))
    assert in_order(times)
    stages = times.stages
    assert stages.pop("total") == sum(stages.values()) == times.returned - times.began
    # The worker's own moments, not ones that were made to fit.
    assert times.sent < times.started < times.ended < times.seen


def test_the_time_in_the_model_is_the_models() -> None:
    with opexec.load(source("sleeper")) as sleeper:
        assert isinstance(sleeper, IsolatedModel)
        _, times = sleeper.infer_timed({"seconds": np.float64(0.05)})
    assert times.stages["model"] >= 50_000_000


def test_some_calls_are_timed_by_every_way_to_call(model: IsolatedModel) -> None:
    calls = (
        lambda: model.infer(X),
        lambda: model(**X),
        lambda: model.submit(X).result(),
    )
    for call in calls:
        before = len(model.sampler.times)
        model.sampler.left_out = 0
        for _ in range(600):
            call()
        assert before < len(model.sampler.times) <= before + 600
    assert all(in_order(times) for times, _ in model.sampler.times)


def test_timed_calls_of_many_threads(model: IsolatedModel) -> None:
    def work() -> None:
        for _ in range(50):
            _, times = model.infer_timed(X)
            wrong.extend([times] * (not in_order(times)))

    wrong: list[CallTimes] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_short_calls_are_timed_seldom_and_long_ones_always() -> None:
    sampler = Sampler()
    sampler.add(CallTimes(0, *[10_000] * 7))
    assert 100 < sampler.left_out <= 256
    sampler.add(CallTimes(0, *[10_000_000] * 7))
    assert sampler.left_out == 0
    sampler.add(CallTimes(0, *[10_000_000] * 7), under_way=1000)
    assert 100 < sampler.left_out <= 256


word = st.integers(0, (1 << 64) - 1)


@given(started=word, ended=word, offsets=word, moments=st.lists(word, min_size=4, max_size=4).map(sorted))
def test_whatever_the_worker_says_lies_between_the_callers_own_moments(
    started: int, ended: int, offsets: int, moments: list[int]
) -> None:
    began, sent, seen, returned = moments
    times = assembled(began, sent, (3, 1, 1, 1, started, 0, ended, offsets), seen, returned)
    assert in_order(times)
    assert (times.began, times.sent, times.seen, times.returned) == tuple(moments)
