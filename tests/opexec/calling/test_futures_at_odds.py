"""Futures that several threads come to at once, or that are interrupted: each ends, once, and with the right thing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import BatchPolicy, Model, OpexecError, TensorSpec
from opexec.connection import Connection
from opexec.connection.loop_reader import LoopReader
from opexec.errors import CallTimeout
from tests.faults.test_interrupts import interruptions
from tests.loaded import in_thread, source
from tests.models import Gate

PATIENCE = 60.0
STAYS = {"x": np.array([-1.0])}  # at the gate, until it is let on
X = {"x": np.array([3.0])}


@pytest.fixture
def gated(gate: Gate) -> Iterator[Model]:
    with opexec.load(source("gated")) as model:
        yield model


def connection(model: Model) -> Connection:
    return model.replicas.first.connection  # type: ignore[attr-defined, no-any-return]


def test_a_callback_comes_while_its_thread_waits_for_another_one_that_reads(gated: Model, gate: Gate) -> None:
    """Who reads leaves, and wakes that thread, to read on: the Future has not ended for that."""
    reading = in_thread(lambda: gated.infer(STAYS))
    gate.wait()
    future = gated.submit(STAYS)
    asking = in_thread(lambda: future.result(PATIENCE))
    while not connection(gated).calls.parked:
        time.sleep(0.001)
    called = threading.Event()
    future.add_done_callback(lambda _: called.set())
    gate.let()
    assert reading.result(PATIENCE)["y"] == -10
    gate.wait()
    assert not called.wait(0.05) and not future.done()
    gate.let()
    assert asking.result(PATIENCE)["y"] == -10 and called.wait(PATIENCE)


def test_a_thread_comes_late_with_the_end_of_a_call_that_was_made_again(gate: Gate) -> None:
    with opexec.load(source("gated"), retries=1) as model:
        future = model.submit(STAYS)
        submission: Any = future._submission  # type: ignore[attr-defined]
        _, first, *_ = submission._under_way
        gate.wait()
        os.kill(model.workers[0].pid or 0, signal.SIGKILL)
        gate.wait()  # in the next worker
        submission._complete(first)
        assert not future.done() and submission._retries == 0
        gate.let()
        assert future.result(PATIENCE)["y"] == -10


def test_an_answer_that_comes_just_as_its_call_is_given_up_is_not_taken(
    gated: Model, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its block is the worker's again: who looks at the call then must find that it has failed."""
    calls = connection(gated).calls
    abandon, found = calls.abandon, []

    def abandoned(call: Any) -> None:
        found.append(call.failure)
        abandon(call)

    monkeypatch.setattr(calls, "abandon", abandoned)
    future = gated.submit(STAYS, timeout=0.01)
    with pytest.raises(CallTimeout):
        future.result(PATIENCE)
    gate.let()
    assert [type(failure) for failure in found] == [CallTimeout]


@pytest.mark.parametrize("batched", [False, True], ids=["plain", "batched"])
def test_ctrl_c_at_every_point_of_cancelling(gate: Gate, batched: bool) -> None:
    """A Future that has begun to be cancelled ends, for those who wait for it too."""
    more: dict[str, Any] = {}
    if batched:
        more = {
            "batch": BatchPolicy(max_size=2, max_delay=0.0),
            "inputs": [TensorSpec("x", "float64", ("n",))],
            "outputs": [TensorSpec("y", "float64", ("n",))],
        }
    with opexec.load(source("gated"), **more) as model:
        busy = model.submit(STAYS)
        gate.wait()
        futures: list[Any] = []

        def cancel() -> None:
            futures[-1].cancel()

        futures.append(model.submit(X))
        for at in interruptions(cancel):
            future = futures[-1]
            assert future.cancel() and future.cancel(), f"interrupted at point {at}"
            done, _ = concurrent.futures.wait([future], PATIENCE)
            assert done and future.cancelled(), f"interrupted at point {at}"
            futures.append(model.submit(X))
        gate.let()
        assert busy.result(PATIENCE)["y"] == -10 and model.infer(X, timeout=PATIENCE)["y"] == 30


def test_ctrl_c_as_a_cancelled_future_is_taken_back_tells_who_waits(
    gated: Model, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = gated.submit(STAYS)
    gate.wait()
    asking = in_thread(lambda: future.result(PATIENCE))
    while not connection(gated).role.holder:
        time.sleep(0.001)
    dismiss, interrupted = Connection.dismiss, []

    def interrupt(connection: Connection, call: Any) -> None:
        if not interrupted:
            interrupted.append(call)
            raise KeyboardInterrupt
        dismiss(connection, call)

    monkeypatch.setattr(Connection, "dismiss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        asking.result(PATIENCE)
    gate.let()
    assert gated.infer(X)["y"] == 30 and gated.stats().in_flight == 0


def test_ctrl_c_as_a_call_is_about_to_be_made_again_ends_it(gate: Gate) -> None:
    with opexec.load(source("gated"), retries=1, max_pending=4) as model:
        replicas: Any = model.replicas  # type: ignore[attr-defined]
        unclaim = replicas.unclaim

        def interrupt(link: Any) -> None:
            replicas.unclaim = unclaim
            unclaim(link)
            raise KeyboardInterrupt

        future = model.submit(STAYS)
        gate.wait()
        replicas.unclaim = interrupt
        os.kill(model.workers[0].pid or 0, signal.SIGKILL)
        assert type(future.exception(PATIENCE)) is KeyboardInterrupt
        assert model.infer(X, timeout=PATIENCE)["y"] == 30


def test_a_forked_copy_does_not_wait_for_a_worker(gate: Gate) -> None:
    with opexec.load(source("gated_while_loading"), wait_ready=False) as model:
        gate.wait()
        future = model.submit(X)
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
        assert future.result(PATIENCE)["x"] == 3


def test_an_event_loop_that_can_open_no_descriptor_ends_its_calls(
    gated: Model, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs one only when another thread, which read for it at first, has left."""
    opened, full = LoopReader._opened, [True]

    def refuse(reader: LoopReader) -> Any:
        if full:
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(reader)

    monkeypatch.setattr(LoopReader, "_opened", refuse)
    reading = in_thread(lambda: gated.infer(STAYS))
    gate.wait()

    async def call() -> None:
        task = asyncio.create_task(gated.infer_async(STAYS))
        while not connection(gated).sent == 2:
            await asyncio.sleep(0.001)
        gate.let()
        with pytest.raises(OSError, match="cannot wait for the worker's answers: Too many open files"):
            await asyncio.wait_for(task, PATIENCE)
        full.clear()
        gate.let()
        assert (await gated.infer_async(X))["y"] == 30

    asyncio.run(call())
    assert reading.result(PATIENCE)["y"] == -10
