"""What connections a process has, how many of their workers are busy, and what that means for who waits."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import CallTimeout, Model, WorkerDied
from opexec.connection import Connection, registry
from opexec.ipc.ring import CALLER, WORKER
from tests.loaded import source
from tests.models import Gate
from tests.waiting import PATIENCE, until


def stopped(model: Model, gate: Gate) -> Future[dict[str, Any]]:
    """A call that is in the model until the gate lets it on."""
    future = model.submit({"x": -np.ones(1)})
    gate.wait()
    return future


def test_workers_that_have_calls_are_busy(gate: Gate) -> None:
    with opexec.load(source("gated")) as one, opexec.load(source("gated")) as other:
        assert registry.busy(8) == 0
        first = stopped(one, gate)
        assert registry.busy(8) == 1
        second = stopped(other, gate)
        one.submit({"x": np.ones(1)})
        assert registry.busy(8) == 2, "a worker does one call at a time"
        assert registry.busy(1) == 1, "and no more than asked for are counted"
        gate.let(2)
        assert first.result()["y"] == second.result()["y"] == -10
        one.infer({"x": np.ones(1)})
        assert registry.busy(8) == 0


def test_a_worker_that_died_is_not_busy(gate: Gate) -> None:
    with opexec.load(source("gated"), restart=False) as model:
        future = stopped(model, gate)
        assert registry.busy(8) == 1
        pid = model.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            future.result()
        assert registry.busy(8) == 0


def test_a_worker_is_busy_with_a_call_that_nobody_waits_for_any_more(gate: Gate) -> None:
    with opexec.load(source("gated")) as model:
        with pytest.raises(CallTimeout):
            model.infer({"x": -np.ones(1)}, timeout=0.01)
        assert registry.busy(8) == 1
        gate.let(1)
        model.infer({"x": np.ones(1)})
        assert registry.busy(8) == 0


def _async(model: Model, inputs: dict[str, Any]) -> None:
    asyncio.run(model.infer_async(inputs))


def _callback(model: Model, inputs: dict[str, Any]) -> None:
    done = threading.Event()
    model.submit(inputs).add_done_callback(lambda future: done.set())
    assert done.wait(PATIENCE)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda model, inputs: model.infer(inputs), id="infer"),
        pytest.param(lambda model, inputs: model.submit(inputs).result(), id="submit"),
        pytest.param(_callback, id="callback"),
        pytest.param(_async, id="infer_async"),
    ],
)
def test_what_a_worker_was_told_does_not_outlast_the_crowd(
    call: Callable[[Model, dict[str, Any]], None],
) -> None:
    """Though nobody looks for its answers: an event loop does not."""
    with opexec.load(source("echo")) as model:
        connection = registry.known()[-1]
        assert isinstance(connection, Connection)
        words = connection.channel.consumer.words
        connection.channel.bell.tell_crowded(True)
        until(lambda: bool(words[WORKER.asleep] & 1))
        call(model, {"x": np.ones(1)})
        assert not words[CALLER.crowded]


def test_a_busy_worker_is_told_when_there_are_more_of_them_than_cores(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opexec.load(source("gated")) as one, opexec.load(source("gated")) as other:
        connection = registry.known()[-2]
        assert isinstance(connection, Connection)
        told = connection.channel.consumer.words
        futures = [stopped(one, gate), stopped(other, gate)]
        for cores, takes_one, are_more in (
            (1, True, 1),
            (2, True, 0),
            (3, True, 0),
            (1, True, 1),
            (4, False, 0),
        ):
            monkeypatch.setattr(connection, "_cores", cores)
            assert connection._crowded() is takes_one
            assert told[CALLER.crowded] == are_more
        gate.let(2)
        for future in futures:
            future.result()
        monkeypatch.setattr(connection, "_cores", 2)
        assert not connection._crowded()


def test_what_is_closed_or_dropped_is_not_known(gate: Gate) -> None:
    before = registry.known()
    with opexec.load(source("gated")):
        assert len(registry.known()) == len(before) + 1
    assert registry.known() == before
    model = opexec.load(source("gated"))
    del model
    until(lambda: registry.known() == before)


def test_it_may_be_asked_while_models_come_and_go(gate: Gate) -> None:
    """A set that changes while it is gone through raises."""
    done = threading.Event()
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            while not done.is_set():
                registry.busy(8)
        except BaseException as error:
            raised.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(200):
            stand_in = _Stand()
            registry.enter(stand_in)  # type: ignore[arg-type]
            del stand_in
    finally:
        done.set()
        asking.join()
    assert not raised


class _Stand:
    """For a connection: as much of one as is looked at."""

    calls = SimpleNamespace(unanswered=1)
    dead = None
