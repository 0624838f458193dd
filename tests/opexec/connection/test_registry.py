"""What connections a process has, and whether those that work want its cores."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Model, WorkerDied
from opexec.connection import registry
from tests.loaded import source
from tests.models import Gate
from tests.waiting import until


def stopped(model: Model, gate: Gate) -> Future[dict[str, Any]]:
    """A call that is in the model until the gate lets it on."""
    future = model.submit({"x": -np.ones(1)})
    gate.wait()
    return future


def test_workers_with_calls_want_two_cores_each(gate: Gate) -> None:
    with opexec.load(source("gated")) as one, opexec.load(source("gated")) as other:
        assert not registry.crowded(1), "nobody works"
        first = stopped(one, gate)
        assert registry.crowded(1) and not registry.crowded(2)
        second = stopped(other, gate)
        assert registry.crowded(3) and not registry.crowded(4)
        one.submit({"x": np.ones(1)})
        assert not registry.crowded(4), "a worker does one call at a time"
        gate.let(2)
        assert first.result()["y"] == second.result()["y"] == -10
        one.infer({"x": np.ones(1)})
        assert not registry.crowded(1)


def test_a_worker_that_died_wants_none(gate: Gate) -> None:
    with opexec.load(source("gated"), restart=False) as model:
        future = stopped(model, gate)
        assert registry.crowded(1)
        pid = model.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            future.result()
        assert not registry.crowded(1)


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
                registry.crowded(2)
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

    pending = {1: None}
    dead = None
