"""`infer_async` keeps the event loop from nothing, however long a call cannot be sent, and whatever else the worker keeps others waiting for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

import opexec
from opexec import CallTimeout, Model, RestartPolicy, WorkerDied
from opexec.ipc.ring import CAPACITY
from opexec.supervision.link import Link
from tests.loaded import source
from tests.models import Gate

#: Longer than any test takes: were the loop to wait for such a call, the call would have ended when the loop goes on.
PATIENCE = 30.0
#: More calls than fit.
MANY = CAPACITY + 5
#: What tells of such inputs is longer than what the control socket holds.
NAMES = [f"input {number}".ljust(2000, "_") for number in range(1000)]


@pytest.fixture
def model() -> Iterator[Any]:
    with opexec.load(source("echo"), grace=None, restart=RestartPolicy(backoff=0.0)) as model:
        model.infer({"x": np.zeros(1)})
        yield model


def pid_of(model: Model) -> int:
    pid = model.workers[0].pid
    assert pid is not None
    return pid


@contextlib.contextmanager
def stopped(model: Model) -> Iterator[int]:
    """Its worker hears nothing meanwhile."""
    pid = pid_of(model)
    worker = psutil.Process(pid)
    worker.suspend()
    try:
        while worker.status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        yield pid
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.resume()


@contextlib.asynccontextmanager
async def heartbeat() -> AsyncIterator[Callable[[], Any]]:
    """Gives what waits for the next ten beats of a task beside the calls."""
    beats = asyncio.Semaphore(0)

    async def beat() -> None:
        while True:
            beats.release()
            await asyncio.sleep(0.001)

    async def ten() -> None:
        for _ in range(10):
            await beats.acquire()

    heart = asyncio.create_task(beat())
    try:
        yield ten
    finally:
        heart.cancel()


def started(model: Model, count: int, timeout: float = PATIENCE) -> list[asyncio.Task[Any]]:
    return [
        asyncio.create_task(model.infer_async({"x": np.full(1, number)}, timeout=timeout))
        for number in range(count)
    ]


async def outcomes(calls: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def many(value: int, size: int) -> dict[str, Any]:
    """Inputs of a signature of their own."""
    return dict.fromkeys(NAMES, np.full(size, value, "u1"))


def assert_serves(model: Any, pid: int) -> None:
    """It answers right, by the same worker, and nothing is left of earlier calls."""
    for value in (3.0, 4.0):
        assert model.infer({"x": np.full(2, value)}, timeout=PATIENCE)["x"].tolist() == [value] * 2
    assert pid_of(model) == pid
    gc.collect()
    assert (model.stats().in_flight, model.stats().blocks_held) == (0, 0)
    assert all(len(stock.free) == stock.made for stock in model._packer._stocks.values())


# ---- more calls than fit


def test_the_loop_goes_on_while_the_worker_has_as_many_calls_as_fit(model: Model) -> None:
    async def main() -> None:
        async with heartbeat() as ten_beats:
            with stopped(model):
                calls = started(model, MANY)
                await ten_beats()
                assert not any(call.done() for call in calls)
                assert model.stats().in_flight == CAPACITY, "the rest waits, without the loop"
            # In turn, and each with its own answer.
            answers = await asyncio.gather(*calls)
            assert [answer["x"].item() for answer in answers] == list(range(MANY))

    pid = pid_of(model)
    asyncio.run(main())
    assert_serves(model, pid)


def test_calls_for_which_there_is_no_room_end_at_their_deadlines(model: Model) -> None:
    async def main() -> None:
        with stopped(model):
            ended = await outcomes(started(model, MANY, 0.2))
            assert [type(one) for one in ended] == [CallTimeout] * MANY
            assert {"it was not sent" in str(one) for one in ended} == {True, False}
            assert model.stats().in_flight == 0

    pid = pid_of(model)
    asyncio.run(main())
    assert_serves(model, pid)


def test_calls_for_which_there_is_no_room_can_be_cancelled(model: Model) -> None:
    async def main() -> None:
        with stopped(model):
            calls = started(model, MANY)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            assert {type(one) for one in await outcomes(calls)} == {asyncio.CancelledError}
            assert model.stats().in_flight == 0

    pid = pid_of(model)
    for _ in range(2):
        asyncio.run(main())
        assert_serves(model, pid)


def test_calls_for_which_there_was_no_room_go_to_the_next_worker(model: Model) -> None:
    async def main() -> None:
        with stopped(model) as pid:
            calls = started(model, MANY)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            answers = (await outcomes(calls))[CAPACITY:]
            assert [answer["x"].item() for answer in answers] == list(range(CAPACITY, MANY))

    asyncio.run(main())
    assert_serves(model, pid_of(model))


# ---- messages that nobody reads


def test_the_loop_goes_on_while_the_worker_reads_no_messages(model: Model) -> None:
    async def main() -> None:
        async with heartbeat() as ten_beats:
            with stopped(model):
                calls = [
                    asyncio.create_task(model.infer_async(many(size, size), timeout=PATIENCE))
                    for size in range(1, 4)
                ]
                await ten_beats()
                assert not any(call.done() for call in calls)
                assert model.stats().in_flight == 0
                # The one whose message is under way: what follows it is still whole.
                calls.pop(0).cancel()
            for size, answer in zip((2, 3), await asyncio.gather(*calls), strict=True):
                assert list(answer) == NAMES
                assert all(value.tolist() == [size] * size for value in answer.values())

    pid = pid_of(model)
    asyncio.run(main())
    assert_serves(model, pid)


def test_calls_of_which_the_worker_reads_nothing_end_at_their_deadlines(model: Model) -> None:
    async def main() -> None:
        with stopped(model):
            calls = [
                asyncio.create_task(model.infer_async(many(size, size), timeout=0.05)) for size in range(1, 4)
            ]
            ended = await outcomes(calls)
            assert all(type(one) is CallTimeout and "it was not sent" in str(one) for one in ended)

    pid = pid_of(model)
    asyncio.run(main())
    answer = model.infer(many(7, 3), timeout=PATIENCE)
    assert list(answer) == NAMES and all(value.tolist() == [7] * 3 for value in answer.values())
    del answer
    assert_serves(model, pid)


def test_the_loop_waits_for_no_thread_whose_call_the_worker_does_not_read(model: Model) -> None:
    async def main() -> None:
        async with heartbeat() as ten_beats:
            with stopped(model):
                blocked = asyncio.create_task(asyncio.to_thread(model.infer, many(1, 1), timeout=PATIENCE))
                while not link_of(model).connection.channel._telling.locked():
                    await asyncio.sleep(0.001)
                call = asyncio.create_task(model.infer_async({"y": np.full(2, 5)}, timeout=PATIENCE))
                await ten_beats()
                assert not call.done() and not blocked.done()
            assert (await call)["y"].tolist() == [5, 5]
            assert list(await blocked) == NAMES

    pid = pid_of(model)
    asyncio.run(main())
    assert_serves(model, pid)


# ---- what else takes long


def link_of(model: Any) -> Link:
    (link,) = model.replicas.serving()
    assert isinstance(link, Link)
    return link


class Held:
    """Holds a function until it is let go; `began` is set in the loop when it is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self.go_on = threading.Event()
        self.began = asyncio.Event()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._loop.call_soon_threadsafe(self.began.set)
        assert self.go_on.wait(PATIENCE), "the event loop was kept from letting it go on"
        return self._function(*arguments, **named)


def test_the_loop_goes_on_while_shared_memory_for_a_result_is_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with opexec.load(source("growing"), timeout=PATIENCE) as model:

        async def main() -> None:
            held = Held(model._memory.create)  # type: ignore[attr-defined]
            monkeypatch.setattr(model._memory, "create", held)  # type: ignore[attr-defined]
            call = asyncio.create_task(model.infer_async({"count": np.array(1 << 20)}))
            await held.began.wait()
            held.go_on.set()
            (result,) = (await call).values()
            assert result.shape == (1 << 20,) and result[-1] == (1 << 20) - 1

        asyncio.run(main())


def test_a_worker_that_cannot_be_given_memory_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with opexec.load(source("growing"), timeout=PATIENCE, restart=RestartPolicy(backoff=0.0)) as model:

        def refuse(*arguments: Any, **named: Any) -> Any:
            raise OSError("no more descriptors")

        with monkeypatch.context() as patched:
            patched.setattr(model._memory, "create", refuse)  # type: ignore[attr-defined]
            with pytest.raises(WorkerDied, match="no more descriptors"):
                asyncio.run(model.infer_async({"count": np.array(1 << 20)}))
        (result,) = model.infer({"count": np.array(3)}).values()
        assert result.tolist() == [0, 1, 2]


def test_the_loop_goes_on_while_it_is_found_out_why_a_worker_has_gone(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opexec.load(source("gated"), timeout=PATIENCE) as model:
        link = link_of(model)
        assert link.watch is not None
        link.watch.cancel()  # the loop is the one that sees it

        async def main() -> None:
            held = Held(link.process.death)
            monkeypatch.setattr(link.process, "death", held)
            call = asyncio.create_task(model.infer_async({"x": np.array([-1.0])}))
            await asyncio.to_thread(gate.wait)
            os.kill(pid_of(model), signal.SIGKILL)
            await held.began.wait()
            held.go_on.set()
            with pytest.raises(WorkerDied, match="SIGKILL"):
                await call

        asyncio.run(main())
        assert model.infer({"x": np.array([2.0])})["y"] == 20


def test_a_worker_may_go_just_as_the_loop_begins_to_watch_it(model: Model) -> None:
    connection = model.replicas.first.connection  # type: ignore[attr-defined]
    watched: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        add_reader = loop.add_reader

        def add_late(file: Any, *callback: Any) -> None:
            """Another thread is quicker to see to the worker's end than the loop comes to watch anything."""
            os.kill(pid, signal.SIGKILL)
            end = threading.Thread(target=lambda: connection.close(connection.bury(), 0))
            end.start()
            end.join()
            loop.add_reader = add_reader  # type: ignore[method-assign]
            watched.append(file)
            add_reader(file, *callback)

        loop.add_reader = add_late  # type: ignore[method-assign]
        x = {"x": np.ones(3)}
        for _ in range(3):  # the first was not read by the worker that went: the next one is given it
            assert (await model.infer_async(x))["x"].sum() == 3
        assert watched.pop().closed

    pid = pid_of(model)
    with stopped(model):  # it answers nothing before
        asyncio.run(main())
    assert pid_of(model) != pid
