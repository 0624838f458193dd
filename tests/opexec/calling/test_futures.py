"""Futures: who completes them, and that all do, whether somebody asks for the result or not."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Model, ModelClosed, OpexecError
from opexec.calling.futures import Submission
from opexec.connection.calls import Call
from opexec.connection.collector import Collector
from tests.loaded import source
from tests.models import Gate

PATIENCE = 60.0
STAYS = {"x": np.array([-1.0])}  # at the gate, until it is let on
X = {"x": np.ones(3)}


@pytest.fixture
def model() -> Iterator[Model]:
    with opexec.load(source("double")) as model:
        model.infer(X)
        yield model


@pytest.fixture
def gated(gate: Gate) -> Iterator[Model]:
    with opexec.load(source("gated")) as model:
        yield model


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that have completed Futures."""
    threads: list[threading.Thread] = []
    end = Submission._end

    def noted(submission: Submission, *outcome: Any) -> None:
        threads.append(threading.current_thread())
        end(submission, *outcome)

    monkeypatch.setattr(Submission, "_end", noted)
    return threads


def is_collector(thread: threading.Thread) -> bool:
    return thread.name.startswith("opexec-collector")


def reads_in_its_thread(model: Model) -> None:
    """Wait until the collector's thread reads for a Future for which nobody waits."""
    role = model.replicas.first.connection.role  # type: ignore[attr-defined]
    while not isinstance(role.holder.get(0), Collector):
        time.sleep(0.001)


def test_the_thread_that_asks_for_the_result_completes_the_future(
    gated: Model, gate: Gate, completed: list[threading.Thread]
) -> None:
    answers: list[Any] = []

    def ask() -> None:
        future = gated.submit(STAYS)
        sent.set()
        answers.append(future.result(PATIENCE))

    sent = threading.Event()
    thread = threading.Thread(target=ask)
    thread.start()
    sent.wait()
    gate.wait()
    while not isinstance(_role(gated).holder.get(0), Call):
        time.sleep(0.001)  # it reads
    gate.let()
    thread.join()
    assert completed == [thread] and answers[0]["y"] == -10


def _role(model: Model) -> Any:
    return model.replicas.first.connection.role  # type: ignore[attr-defined]


def test_one_that_nobody_asks_is_completed_all_the_same(
    model: Model, completed: list[threading.Thread]
) -> None:
    futures = [model.submit(X) for _ in range(5)]
    done, left = concurrent.futures.wait(futures, PATIENCE)
    assert len(done) == 5 and not left and all(map(is_collector, completed))
    for future in concurrent.futures.as_completed([model.submit(X) for _ in range(5)], PATIENCE):
        assert future.result()["y"].sum() == 6


def test_one_that_is_dropped_keeps_no_memory(model: Model) -> None:
    for _ in range(20):
        model.submit(X)
    while model.stats().in_flight or model.stats().blocks_held:
        gc.collect()
        time.sleep(0.001)


def test_callbacks_run_in_no_thread_that_waits(gated: Model, gate: Gate) -> None:
    ran: list[threading.Thread] = []
    future = gated.submit(STAYS)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(future.result(PATIENCE)))
    asking.start()
    while not isinstance(_role(gated).holder.get(0), Call):
        time.sleep(0.001)  # it reads
    called = threading.Event()
    future.add_done_callback(lambda _: (ran.append(threading.current_thread()), called.set()))
    gate.let()
    asking.join()
    assert called.wait(PATIENCE) and is_collector(ran[0]) and answers[0]["y"] == -10


def test_a_result_asked_for_too_early_comes_later(gated: Model, gate: Gate) -> None:
    future = gated.submit(STAYS)
    for timeout in (0, 0.01):
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.exception(timeout)
    assert not future.done()
    gate.let()
    assert future.exception(PATIENCE) is None and future.result(0)["y"] == -10


def test_many_threads_ask_for_one(gated: Model, gate: Gate) -> None:
    future = gated.submit(STAYS)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(future.result(PATIENCE)["y"])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    gate.wait()
    gate.let()
    for thread in threads:
        thread.join()
    assert len({id(answer) for answer in answers}) == 1 and answers[0] == -10


def test_a_thread_that_waits_for_one_that_is_cancelled_goes(gated: Model, gate: Gate) -> None:
    future = gated.submit(STAYS)
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            future.result(PATIENCE)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    gate.wait()
    while not _role(gated).holder:
        time.sleep(0.001)
    assert future.cancel()
    thread.join()
    gate.let()
    assert type(failures[0]) is concurrent.futures.CancelledError
    assert gated.infer({"x": np.array([3.0])})["y"] == 30


def test_a_thread_that_waits_when_the_model_is_closed_is_told(gated: Model, gate: Gate) -> None:
    future = gated.submit(STAYS)
    closing = threading.Thread(target=lambda: (gate.wait(), gated.close()))
    closing.start()
    with pytest.raises(ModelClosed):
        future.result(PATIENCE)
    closing.join()


def test_a_thread_with_a_call_of_its_own_reads_instead_of_the_collector(gated: Model, gate: Gate) -> None:
    future = gated.submit(STAYS)
    gate.wait()
    reads_in_its_thread(gated)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(gated.infer({"x": np.array([3.0])})))
    thread.start()
    while isinstance(_role(gated).holder.get(0), Collector):
        time.sleep(0.001)
    gate.let()
    thread.join()
    assert answers[0]["y"] == 30 and future.result(PATIENCE)["y"] == -10


def test_a_callback_may_wait_for_another_future(gated: Model, gate: Gate) -> None:
    first, second = gated.submit(STAYS), gated.submit(STAYS)
    third = gated.submit({"x": np.array([4.0])})
    third.add_done_callback(lambda _: None)
    answers: list[Any] = []
    asked, answered = threading.Event(), threading.Event()

    def ask(_: object) -> None:
        asked.set()
        answers.extend(future.result(PATIENCE)["y"] for future in (second, third))
        answered.set()

    first.add_done_callback(ask)
    gate.let()
    assert asked.wait(PATIENCE)
    gate.let()
    assert answered.wait(PATIENCE) and answers == [-10, 40]


def test_a_forked_copy_waits_for_nothing(gated: Model, gate: Gate) -> None:
    future = gated.submit(STAYS)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            future.result(PATIENCE)
        except OpexecError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gate.let()
    assert future.result(PATIENCE)["y"] == -10


def test_of_calls_under_way_together_not_all_are_timed(gated: Model, gate: Gate) -> None:
    gated.sampler.left_out = 9  # type: ignore[attr-defined]
    connection = gated.replicas.first.connection  # type: ignore[attr-defined]
    connection.next_timed = 0
    futures = [
        gated.submit(STAYS) for _ in range(30)
    ]  # none has ended, and said when the next is to be timed
    timed = [call.timed for call in list(connection.pending.values())]
    gate.let(30)
    assert all(future.result(PATIENCE)["y"] == -10 for future in futures)
    assert [place for place, was in enumerate(timed) if was] == [0, 10, 20]
