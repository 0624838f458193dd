"""Many calls at once, made in every way: each gets its own answer or its own error, and none waits for ever."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import CallTimeout, Model, ModelClosed, WorkerDied
from opexec.ipc import wire
from opexec.ipc.ring import Producer
from tests.loaded import PYTHONS, in_thread, interpreter, source
from tests.models import Gate
from tests.worker_processes import workers

#: Long enough for anything that comes at all.
PATIENCE = 60.0


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str | None:
    return interpreter(request.param)


def x(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def by_infer(model: Model, array: np.ndarray, timeout: float | None = None) -> Future[Any]:
    return in_thread(lambda: model.infer({"x": array}, timeout=timeout))


def by_submit(model: Model, array: np.ndarray, timeout: float | None = None) -> Future[Any]:
    return model.submit({"x": array}, timeout=timeout)


def by_infer_async(model: Model, array: np.ndarray, timeout: float | None = None) -> Future[Any]:
    return in_thread(lambda: asyncio.run(model.infer_async({"x": array}, timeout=timeout)))


WAYS = [by_infer, by_submit, by_infer_async]


def wait_until_sent(model: Model, calls: int) -> None:
    while model.stats().calls < calls:
        pass


def assert_nothing_is_held(model: Model) -> None:
    """One call more than its own output is not held, and memory does not grow."""
    gc.collect()
    for _ in range(3):
        model.infer({"x": x(1)})
    assert model.stats().blocks_held <= 1
    before = model.stats()
    for number in range(1000):
        assert model.infer({"x": x(number)})["y"] == 10 * number
    after = model.stats()
    assert (after.shared_memory, after.blocks_held) == (before.shared_memory, before.blocks_held)


# ---- deadlines


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_the_first_caller_times_out_and_the_second_gets_its_own_answer(
    gate: Gate, first: Callable[..., Future[Any]], second: Callable[..., Future[Any]]
) -> None:
    with opexec.load(source("gated")) as model:
        late = first(model, x(-1), timeout=0.05)
        gate.wait()
        prompt = second(model, x(7))
        wait_until_sent(model, 2)  # both are in the worker's ring
        with pytest.raises(CallTimeout, match="did not answer within the call's timeout"):
            late.result(PATIENCE)
        assert not prompt.done()
        gate.let()
        assert prompt.result(PATIENCE)["y"] == 70, "the late answer was taken for its own"
        del prompt, late
        assert_nothing_is_held(model)
        assert model.workers[0].state == "ready"


@pytest.mark.slow
def test_a_late_answer_is_discarded_with_an_old_worker_too(gate: Gate) -> None:
    with opexec.load(source("gated"), env=interpreter("3.7")) as model:
        with pytest.raises(CallTimeout):
            model.infer({"x": x(-1)}, timeout=0.05)
        gate.let()
        assert model.infer({"x": x(3)})["y"] == 30
        assert_nothing_is_held(model)


@pytest.mark.parametrize("way", WAYS)
def test_many_late_answers_leave_nothing_behind(gate: Gate, way: Callable[..., Future[Any]]) -> None:
    with opexec.load(source("gated")) as model:
        big = np.full(50_000, -1.0)
        calls = [way(model, big, timeout=0.2) for _ in range(20)]
        for call in calls:
            with pytest.raises(CallTimeout):
                call.result(PATIENCE)
        gate.let(20)
        assert model.infer({"x": x(3)})["y"] == 30
        del calls, call
        assert_nothing_is_held(model)


def test_the_models_own_timeout_holds_where_the_call_gives_none(gate: Gate) -> None:
    with opexec.load(source("gated"), timeout=0.05) as model:
        for call in (
            lambda: model.infer({"x": x(-1)}),
            lambda: model(x=x(-1)),
            lambda: model.submit({"x": x(-1)}).result(PATIENCE),
            lambda: asyncio.run(model.infer_async({"x": x(-1)})),
        ):
            with pytest.raises(TimeoutError):
                call()
        gate.let(4)
        patient = in_thread(lambda: model.infer({"x": x(-2)}, timeout=PATIENCE))
        gate.wait(5)
        gate.let()
        assert patient.result(PATIENCE)["y"] == -20


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 1e9, 10**30])
def test_a_timeout_may_be_as_long_as_one_likes(timeout: float) -> None:
    with opexec.load(source("double")) as model:
        assert model.infer({"x": x(1)}, timeout=timeout)["y"] == 2
        assert model.submit({"x": x(1)}, timeout=timeout).result()["y"] == 2
        assert asyncio.run(model.infer_async({"x": x(1)}, timeout=timeout))["y"] == 2


@pytest.mark.parametrize("timeout", ["5", float("nan"), [1]])
def test_a_timeout_that_is_none(timeout: Any) -> None:
    with opexec.load(source("double")) as model:
        for call in (
            lambda: model.infer({"x": x(1)}, timeout=timeout),
            lambda: model.submit({"x": x(1)}, timeout=timeout),
            lambda: asyncio.run(model.infer_async({"x": x(1)}, timeout=timeout)),
        ):
            with pytest.raises(ValueError, match="expected a number of seconds"):
                call()
        assert model.infer({"x": x(1)})["y"] == 2


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
def test_no_time_at_all_is_a_timeout_or_an_answer(timeout: float) -> None:
    with opexec.load(source("double")) as model:
        for way in WAYS:
            try:
                assert way(model, x(1), timeout=timeout).result(PATIENCE)["y"] == 2
            except CallTimeout:
                pass
        for number in range(100):
            assert model.infer({"x": x(number)})["y"] == 2 * number


# ---- many at once


def test_answers_never_cross(python: str | None) -> None:
    """Eight threads with 200 calls each, in every way, of several signatures, some of which time out, fail, or hold their outputs."""
    with opexec.load(source("failing"), env=python) as model:

        def check(result: dict[str, Any], array: np.ndarray) -> None:
            assert result["output"].tobytes() == array.tobytes() and result["output"].shape == array.shape

        async def some(arrays: list[np.ndarray]) -> None:
            calls = [model.infer_async({"how": np.array("x"), "x": array}) for array in arrays]
            for array, result in zip(arrays, await asyncio.gather(*calls), strict=True):
                check(result, array)

        def work(seed: int) -> list[tuple[dict[str, Any], np.ndarray]]:
            chance = random.Random(seed)
            held, futures, done = [], [], 0
            while done < 200:
                arrays = [
                    np.full(
                        chance.choice([1, 10, 3000]),
                        seed * 1e6 + done + index,
                        chance.choice(["f8", "f4", "i8"]),
                    )
                    for index in range(chance.choice([1, 1, 8]))
                ]
                done += len(arrays)
                way = chance.randrange(5)
                if way == 0:
                    asyncio.run(some(arrays))
                    continue
                for array in arrays:
                    inputs = {"how": np.array("x"), "x": array}
                    if way == 1:
                        futures.append((model.submit(inputs), array))
                    elif way == 2:
                        held.append((model.infer(inputs), array))
                    elif way == 3:
                        with pytest.raises(opexec.ModelError, match="a t\u00e9xt"):
                            model.infer({**inputs, "how": np.array("raise")})
                    else:
                        np.testing.assert_array_equal(model(**inputs), array)
            held += [(future.result(PATIENCE), array) for future, array in futures]
            return held

        with ThreadPoolExecutor(8) as pool:
            for held in [
                future.result(PATIENCE) for future in [pool.submit(work, seed) for seed in range(8)]
            ]:
                for result, array in held:
                    check(result, array)
        assert model.stats().calls >= 1600


def test_one_event_loop_makes_many_calls_at_once(python: str | None) -> None:
    async def main(model: Model) -> None:
        results = await asyncio.gather(*(model.infer_async({"x": x(number)}) for number in range(300)))
        assert [float(result["y"][0]) for result in results] == [2.0 * number for number in range(300)]

    with opexec.load(source("double"), env=python) as model:
        for _ in range(3):
            asyncio.run(main(model))
            assert model.infer({"x": x(4)})["y"] == 8


def test_several_event_loops_at_once(python: str | None) -> None:
    async def main(model: Model, seed: int) -> None:
        for start in range(0, 100, 5):
            numbers = range(1000 * seed + start, 1000 * seed + start + 5)
            results = await asyncio.gather(*(model.infer_async({"x": x(number)}) for number in numbers))
            assert [float(result["y"][0]) for result in results] == [2.0 * number for number in numbers]

    with opexec.load(source("double"), env=python) as model, ThreadPoolExecutor(4) as pool:
        for loop in [pool.submit(asyncio.run, main(model, seed)) for seed in range(4)]:
            loop.result(PATIENCE)


def test_more_calls_than_the_ring_has_slots(gate: Gate) -> None:
    with opexec.load(source("gated")) as model:
        stuck = model.submit({"x": x(-1)})
        gate.wait()
        with ThreadPoolExecutor(2) as pool:
            calls = pool.map(lambda number: model.submit({"x": x(number)}), range(1500))
            wait_until_sent(model, 1000)
            with pytest.raises(CallTimeout):
                for _ in range(1000):  # no room in the ring: a call ends at its deadline all the same
                    model.submit({"x": x(1)}, timeout=0.05)
            gate.let()
            assert [float(call.result(PATIENCE)["y"][0]) for call in calls] == [
                10.0 * number for number in range(1500)
            ]
        assert stuck.result()["y"] == -10
        del stuck, calls
        assert_nothing_is_held(model)


def full_at_first(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """The ring is full for the next call, which `meanwhile` happens to; then it is not."""
    publish, waiting = Producer.publish, [meanwhile]

    def full(producer: Producer, kind: int, *words: Any) -> bool:
        if kind == wire.CALL and waiting:
            waiting.pop()()
            return False
        return bool(publish(producer, kind, *words))

    monkeypatch.setattr(Producer, "publish", full)


def test_a_future_is_cancelled_just_as_its_call_finds_the_ring_full(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = threading.Event()
    with opexec.load(source("gated_while_loading"), wait_ready=False) as model:
        future = model.submit({"x": x(1)})
        full_at_first(monkeypatch, lambda: future.cancel() and cancelled.set())
        gate.wait()
        gate.let()
        assert cancelled.wait(PATIENCE)
        while not model.replicas.first.connection.sent:  # type: ignore[attr-defined]
            pass
        assert model.infer({"x": x(2)})["x"] == 2
        assert model.replicas.first.connection.calls.unanswered == 0  # type: ignore[attr-defined]
        assert model.stats().in_flight == 0


class Asked:
    """A lock that tells when another thread than this one asks for it."""

    def __init__(self, lock: threading.Lock) -> None:
        self.asked = threading.Event()
        self._lock = lock
        self._own = threading.current_thread()

    def __enter__(self) -> None:
        if threading.current_thread() is not self._own:
            self.asked.set()
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def test_a_deadline_passes_just_as_its_call_finds_the_ring_full(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opexec.load(source("gated")) as model:
        link = model.replicas.first  # type: ignore[attr-defined]
        connection = link.connection
        call, _ = model._prepare(link, ("x",), [x(1)], 0, PATIENCE)  # type: ignore[attr-defined]
        call.finish = lambda call: None
        connection._sending = lock = Asked(connection._sending)

        def give_up() -> bool:
            try:
                return bool(connection.give_up(call, CallTimeout("late")))
            finally:
                lock.asked.set()

        given_up: list[Future[Any]] = []
        full_at_first(monkeypatch, lambda: given_up.append(in_thread(give_up)) or lock.asked.wait(PATIENCE))
        assert not connection._publish(call, call.block)
        assert not given_up[0].result(PATIENCE), "it is not sent"
        assert connection.calls.unanswered == 0 and call.failure is None
        connection.calls.abandon(call)
        assert_nothing_is_held(model)


def test_threads_with_a_model_each() -> None:
    def work(seed: int) -> None:
        with opexec.load(source("double")) as model:
            for number in range(100):
                assert model.infer({"x": x(seed, number)})["y"].tolist() == [2 * seed, 2 * number]

    with ThreadPoolExecutor(4) as pool:
        for outcome in [pool.submit(work, seed) for seed in range(4)]:
            outcome.result(PATIENCE)


# ---- calls inside calls


def test_a_futures_callback_may_call_the_model() -> None:
    with opexec.load(source("double")) as model:
        outcomes: list[Future[Any]] = [Future() for _ in range(3)]

        def again(future: Future[Any]) -> None:
            try:
                outcomes[0].set_result(model.infer({"x": future.result()["y"]})["y"])
                outcomes[1].set_result(model.submit({"x": x(5)}).result(PATIENCE)["y"])
                outcomes[2].set_result(asyncio.run(model.infer_async({"x": x(6)}))["y"])
            except BaseException as error:
                outcomes[0].set_exception(error)

        model.submit({"x": x(1)}).add_done_callback(again)
        assert [float(outcome.result(PATIENCE)[0]) for outcome in outcomes] == [4, 10, 12]


def test_a_callback_may_raise_anything(capfd: pytest.CaptureFixture[str]) -> None:
    with opexec.load(source("double")) as model:
        for error in (ValueError("nothing is right"), SystemExit(3), KeyboardInterrupt()):

            def fail(future: Future[Any], error: BaseException = error) -> None:
                raise error

            model.submit({"x": x(1)}).add_done_callback(fail)
            assert model.submit({"x": x(2)}).result(PATIENCE)["y"] == 4
    assert "SystemExit: 3" in capfd.readouterr().err


def test_a_slow_callback_keeps_nobody_else_waiting(gate: Gate) -> None:
    with opexec.load(source("gated")) as model:
        go_on, entered = threading.Event(), threading.Event()

        def slow(future: Future[Any]) -> None:
            entered.set()
            go_on.wait(PATIENCE)

        stuck = by_infer(model, x(-1))
        gate.wait()
        first = model.submit({"x": x(1)})
        first.add_done_callback(slow)
        gate.let()
        assert stuck.result(PATIENCE)["y"] == -10
        assert entered.wait(PATIENCE)
        try:
            for way in (by_infer, by_infer_async):
                assert way(model, x(3)).result(PATIENCE)["y"] == 30
        finally:
            go_on.set()


def test_a_callback_may_close_the_model() -> None:
    model = opexec.load(source("double"))
    closed: Future[None] = Future()

    def close(future: Future[Any]) -> None:
        model.close()
        closed.set_result(None)

    future = model.submit({"x": x(1)})
    future.add_done_callback(close)
    closed.result(PATIENCE)
    assert future.result()["y"] == 2
    with pytest.raises(ModelClosed):
        model.infer({"x": x(1)})


def test_a_plain_call_inside_an_event_loop_that_waits_for_others(gate: Gate) -> None:
    async def main(model: Model) -> None:
        stuck = asyncio.ensure_future(model.infer_async({"x": x(-1)}))
        await asyncio.to_thread(gate.wait)
        gate.let()
        assert model.infer({"x": x(2)}, timeout=PATIENCE)["y"] == 20  # the loop does nothing meanwhile
        assert model.submit({"x": x(3)}).result(PATIENCE)["y"] == 30
        assert (await stuck)["y"] == -10

    with opexec.load(source("gated")) as model:
        asyncio.run(main(model))


def test_an_event_loop_that_is_busy_keeps_no_thread_waiting(gate: Gate) -> None:
    async def main(model: Model) -> None:
        stuck = asyncio.ensure_future(model.infer_async({"x": x(-1)}))
        await asyncio.to_thread(gate.wait)
        threads = [by_infer(model, x(number)) for number in range(3)] + [by_submit(model, x(3))]
        wait_until_sent(model, 5)
        gate.let()
        # As long as this takes, the loop comes to nothing else.
        assert [float(call.result(PATIENCE)["y"][0]) for call in threads] == [0, 10, 20, 30]
        assert (await stuck)["y"] == -10

    with opexec.load(source("gated")) as model:
        asyncio.run(main(model))


def test_a_coroutine_that_is_cancelled_leaves_nothing_behind(gate: Gate) -> None:
    async def main(model: Model) -> None:
        calls = [asyncio.ensure_future(model.infer_async({"x": x(-number)})) for number in (1, 2, 3)]
        await asyncio.to_thread(gate.wait)
        calls[0].cancel()
        calls[2].cancel()
        gate.let(3)
        assert (await calls[1])["y"] == -20
        for call in (calls[0], calls[2]):
            with pytest.raises(asyncio.CancelledError):
                await call
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(model.infer_async({"x": x(-9)}), 0.05)
        gate.let()

    with opexec.load(source("gated")) as model:
        asyncio.run(main(model))
        assert_nothing_is_held(model)


def test_an_event_loop_that_ends_with_calls_in_flight(gate: Gate) -> None:
    async def main(model: Model) -> None:
        asyncio.ensure_future(model.infer_async({"x": x(-1)}))
        await asyncio.to_thread(gate.wait)

    with opexec.load(source("gated")) as model:
        asyncio.run(main(model))
        gate.let()
        for way in WAYS:
            assert way(model, x(4)).result(PATIENCE)["y"] == 40
        assert_nothing_is_held(model)


# ---- the end, with calls in flight


@pytest.mark.parametrize("end", ["close", "restart"])
def test_whoever_waits_is_told_when_the_model_ends(gate: Gate, end: str) -> None:
    expected: type[Exception] = ModelClosed if end == "close" else WorkerDied
    model = opexec.load(source("gated"))
    calls = [way(model, x(-1)) for way in WAYS for _ in range(3)]
    wait_until_sent(model, len(calls))
    gate.wait()
    getattr(model, end)()
    for call in calls:
        with pytest.raises(expected):
            call.result(PATIENCE)
    if end == "restart":
        assert model.infer({"x": x(2)})["y"] == 20
        for way in WAYS:
            assert way(model, x(3)).result(PATIENCE)["y"] == 30
        assert model.stats().calls >= len(calls) + 4, "counted since the model was loaded"
    model.close()


def test_closing_from_within_the_event_loop_that_waits(gate: Gate) -> None:
    async def main(model: Model) -> None:
        calls = [asyncio.ensure_future(model.infer_async({"x": x(-1)})) for _ in range(3)]
        await asyncio.to_thread(gate.wait)
        model.close()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, ModelClosed)

    asyncio.run(main(opexec.load(source("gated"))))


def test_closing_and_restarting_from_many_threads_at_once() -> None:
    with opexec.load(source("double")) as model:
        with ThreadPoolExecutor(4) as pool:
            wait([pool.submit(model.restart) for _ in range(4)])  # type: ignore[attr-defined]
        assert model.infer({"x": x(2)})["y"] == 4
        assert workers_of_this_process() == {model.workers[0].pid}
        with ThreadPoolExecutor(4) as pool:
            outcomes = [pool.submit(end) for end in (model.restart, model.close, model.close, model.restart)]  # type: ignore[attr-defined]
        for outcome in outcomes:
            assert isinstance(outcome.exception(), ModelClosed | None)
    assert workers_of_this_process() == set()


def workers_of_this_process() -> set[int]:
    gc.collect()
    return {worker.pid for worker in workers()}


def test_calls_while_another_thread_closes() -> None:
    for _ in range(5):
        model = opexec.load(source("double"))
        ready = threading.Barrier(4)

        def work(
            way: Callable[..., Future[Any]], model: Model = model, ready: threading.Barrier = ready
        ) -> int:
            ready.wait()
            number = 0
            while True:
                try:
                    assert way(model, x(number)).result(PATIENCE)["y"] == 2 * number
                except ModelClosed:
                    return number
                number += 1

        with ThreadPoolExecutor(3) as pool:
            outcomes = [pool.submit(work, way) for way in WAYS]
            ready.wait()
            wait_until_sent(model, 50)
            model.close()
            assert sum(outcome.result(PATIENCE) for outcome in outcomes) >= 20
