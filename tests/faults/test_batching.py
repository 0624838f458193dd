"""A worker that dies with a batch: every call of it ends, typed or answered, and those that wait go to the next worker."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import BatchPolicy, CallTimeout, Model, RestartPolicy, TensorSpec, WorkerDied
from tests.loaded import gate as gate
from tests.loaded import in_thread, source
from tests.models import Gate

PATIENCE = 60.0


def load(**arguments: Any) -> Model:
    return opexec.load(
        source("batched"),
        inputs=[TensorSpec("x", "float64", ["rows"])],
        outputs=[TensorSpec("y", "float64", ["rows"]), TensorSpec("n", "int64", ["rows"])],
        restart=RestartPolicy(max_restarts=50, backoff=0.0),
        batch=BatchPolicy(max_delay=0.0),
        **{"timeout": PATIENCE, **arguments},
    )


def x(*values: float) -> dict[str, Any]:
    return {"x": np.array(values, np.float64)}


def test_each_call_of_the_batch_fails_and_those_that_wait_do_not(gate: Gate) -> None:
    with load() as model:
        held = model.submit(x(-1))
        gate.wait()
        batch = [model.submit(x(-2)), model.submit(x(3, 3)), in_thread(lambda: model.infer(x(4)))]
        while model.stats().in_flight < 4:
            pass
        gate.let()
        gate.wait()  # the batch is in the model
        later = [model.submit(x(5)), model.submit(x(6))]
        pid = model.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        errors = [future.exception(PATIENCE) for future in batch]
        assert all(isinstance(error, WorkerDied) and error.signal == "SIGKILL" for error in errors)
        assert len({id(error) for error in errors}) == 3, "an exception for each"
        assert [future.result(PATIENCE)["n"].tolist() for future in later] == [[2], [2]]
        assert held.result(PATIENCE)["y"] == -10
        while sum(model.stats().errors.values()) < 3:  # they are counted after they are told
            time.sleep(0.001)
        assert model.stats().errors == {"WorkerDied": 3} and model.stats().in_flight == 0


def test_a_batch_that_may_be_repeated_is(gate: Gate) -> None:
    with load(retries=1) as model:
        held = model.submit(x(-1))
        gate.wait()
        batch = [model.submit(x(-2)), model.submit(x(3, 3))]
        gate.let()
        gate.wait()
        copied = model.stats().bytes_copied_in
        pid = model.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        gate.wait()  # again, in the next worker
        gate.let()
        assert [future.result(PATIENCE)["y"].tolist() for future in batch] == [[-20], [30, 30]]
        assert held.result(PATIENCE) and model.stats().bytes_copied_in == copied, "the rows were there still"


def test_a_call_that_kills_the_model_fails_all_it_was_joined_with_and_the_next_ones_go_on(gate: Gate) -> None:
    with load() as model:
        held = model.submit(x(-1))
        gate.wait()
        batch = [model.submit(x(1)), model.submit(x(np.inf))]
        gate.let()
        for future in batch:
            with pytest.raises(WorkerDied, match="SIGKILL"):
                future.result(PATIENCE)
        assert held.result(PATIENCE)
        futures = [model.submit(x(number)) for number in range(20)]
        assert [future.result(PATIENCE)["y"].item() for future in futures] == [10 * one for one in range(20)]


def test_a_stuck_batch_is_ended_by_its_deadlines(gate: Gate) -> None:
    with load(grace=0.0) as model:
        held = model.submit(x(-1))
        gate.wait()
        batch = [model.submit(x(-2), timeout=2.0), model.submit(x(3), timeout=0.5)]
        gate.let()
        gate.wait()  # and nobody lets it on
        for future in batch:
            with pytest.raises(CallTimeout):
                future.result(PATIENCE)
        while not model.stats().restarts:
            time.sleep(0.001)
        assert held.result(PATIENCE) and model.infer(x(4))["y"] == 40
