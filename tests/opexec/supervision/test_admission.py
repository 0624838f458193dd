"""`when_full="wait"` for an event loop: a call that finds no seat waits for one, and what becomes of it loses none."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import CallTimeout, Model, ModelClosed
from opexec.supervision.admission import Admission
from tests.loaded import source
from tests.models import Gate

PATIENCE = 60.0
STOP = np.array([-1.0])


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, PATIENCE))


def load(**arguments: Any) -> Model:
    return opexec.load(source("gated"), max_pending=1, when_full="wait", **{"timeout": PATIENCE, **arguments})


async def ask(model: Model, value: float, timeout: float | None = None) -> float:
    return float((await model.infer_async({"x": np.array([value])}, timeout=timeout))["y"][0])


async def at_the_gate(model: Model, gate: Gate) -> asyncio.Task[float]:
    """A call that has the only seat until the gate lets it on."""
    first = asyncio.create_task(ask(model, -1))
    await asyncio.to_thread(gate.wait)
    return first


async def asked(*calls: Coroutine[Any, Any, float]) -> list[asyncio.Task[float]]:
    """Calls that have asked for a seat, in this order, and wait for it."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


def test_seats_are_given_in_the_order_in_which_they_were_asked_for(gate: Gate) -> None:
    done: list[float] = []

    async def noted(model: Model, value: float) -> float:
        done.append(await ask(model, value))
        return done[-1]

    async def main() -> None:
        first = await at_the_gate(model, gate)
        waiting = await asked(*(noted(model, value) for value in range(1, 6)))
        assert model.stats().in_flight == 1, "they are not sent before they have a seat"
        gate.let()
        assert await first == -10
        await asyncio.gather(*waiting)
        assert done == [10, 20, 30, 40, 50]

    with load() as model:
        run(main())


def test_a_call_that_is_given_none_ends_at_its_deadline(gate: Gate) -> None:
    async def main() -> None:
        first = await at_the_gate(model, gate)
        for timeout in (0.01, 0.0):
            with pytest.raises(CallTimeout, match=r"max_pending=1 .* was not sent"):
                await ask(model, 1, timeout)
        gate.let()
        assert await first == -10
        assert await ask(model, 2) == 20, "the seat is there for the next"
        assert model.stats().calls == 2

    with load() as model:
        run(main())


def test_a_cancelled_call_leaves_the_row(gate: Gate) -> None:
    async def main() -> None:
        first = await at_the_gate(model, gate)
        before, cancelled, after = await asked(*(ask(model, value) for value in (1, 2, 3)))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        gate.let()
        assert (await first, await before, await after) == (-10, 10, 30)
        assert model.stats().calls == 3

    with load() as model:
        run(main())


def test_a_seat_that_is_given_to_a_call_that_is_cancelled_in_that_moment_is_not_lost(gate: Gate) -> None:
    chosen: asyncio.Task[float]

    async def call_and_cancel_the_next() -> float:
        outcome = await ask(model, -1)
        chosen.cancel()  # it has the seat by now, and does not know yet
        return outcome

    async def main() -> None:
        nonlocal chosen
        first = asyncio.create_task(call_and_cancel_the_next())
        await asyncio.to_thread(gate.wait)
        chosen, next = await asked(ask(model, 1), ask(model, 2))
        gate.let()
        assert await first == -10
        with pytest.raises(asyncio.CancelledError):
            await chosen
        assert await next == 20 and await ask(model, 3) == 30
        assert model.stats().calls == 3

    with load() as model:
        run(main())


def test_closing_the_model_dismisses_who_waits(gate: Gate) -> None:
    async def main() -> None:
        first = await at_the_gate(model, gate)
        waiting = await asked(ask(model, 1), ask(model, 2))
        await asyncio.to_thread(model.close)
        for one in (first, *waiting):
            with pytest.raises(ModelClosed):
                await one

    model = load()
    run(main())


def test_a_forked_copy_waits_for_no_lock_to_give_a_seat_back() -> None:
    """It has its Futures, and drops them, and another thread of the original may have been at it."""
    admission = Admission("copied", 1, waits=True)
    seat = admission.enter(None)
    locked, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with admission._lock:
            locked.set()
            forked.wait(PATIENCE)

    holding = threading.Thread(target=hold)
    holding.start()
    locked.wait(PATIENCE)
    pid = os.fork()
    if not pid:
        signal.alarm(5)  # ends it, if it waits
        seat.leave()
        os._exit(0)
    forked.set()
    holding.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    seat.leave()
    assert admission._taken == 0
