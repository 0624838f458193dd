"""Batching: each caller gets its own rows and its own errors, whatever its call was joined with."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import opexec
from opexec import (
    BatchPolicy,
    CallTimeout,
    Model,
    ModelClosed,
    ModelError,
    OpexecError,
    Overloaded,
    SpecError,
    TensorSpec,
)
from opexec.batching.seam import Seam
from tests.loaded import gate as gate
from tests.loaded import in_thread, source
from tests.models import Gate

PATIENCE = 60.0
STOP = np.array([-1.0])
#: Idle workers wait for nobody, or for ever.
EAGER, PATIENT = BatchPolicy(max_delay=0.0), BatchPolicy(max_delay=1e6)


def spec(name: str, *shape: int | str | None, dtype: str = "float64") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def load(policy: BatchPolicy = EAGER, factory: str = "batched", **arguments: Any) -> Model:
    specs = {"inputs": [spec("x", "rows")], "outputs": [spec("y", "rows"), spec("n", "rows", dtype="int64")]}
    return opexec.load(source(factory), batch=policy, **{"timeout": PATIENCE, **specs, **arguments})


def hold(model: Model, gate: Gate) -> Future[Any]:
    """Have the worker stop at the gate: what is called now waits."""
    future = model.submit({"x": STOP})
    gate.wait()
    return future


def x(*values: float) -> dict[str, Any]:
    return {"x": np.array(values, np.float64)}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, Gate]]:
    """One model for most tests."""
    folder = tmp_path_factory.mktemp("gate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPEXEC_TEST_GATE", str(folder))
        gate = Gate(folder)
        with load(BatchPolicy(max_size=8, max_delay=0.0)) as model:
            yield model, gate
        gate.close()


# ---- joining


@given(data=st.data())
@settings(max_examples=60)
def test_each_caller_gets_exactly_its_rows(shared: tuple[Model, Gate], data: st.DataObject) -> None:
    model, gate = shared
    calls = data.draw(
        st.lists(
            st.tuples(st.integers(0, 11), st.sampled_from(["submit", "infer", "call", "async"])), max_size=12
        )
    )
    cancelled = data.draw(st.sets(st.integers(0, 11)))
    before = model.stats()
    held = hold(model, gate)
    futures = []
    for number, (rows, way) in enumerate(calls):
        given = np.arange(rows) + 100.0 * number
        futures.append(_ways(model)[way](given))
        if way != "submit":  # it is on its way in a thread
            while model.stats().in_flight < len(futures) + 1:
                pass
    gone = [
        number
        for number, future in enumerate(futures)
        if number in cancelled and calls[number][1] == "submit" and future.cancel()
    ]
    gate.let()
    assert held.result(PATIENCE)["y"] == -10
    for number, ((rows, _), future) in enumerate(zip(calls, futures, strict=True)):
        if number in gone:
            assert future.cancelled()
            continue
        result = future.result(PATIENCE)
        np.testing.assert_array_equal(result["y"], 10 * (np.arange(rows) + 100.0 * number))
        assert all(rows <= size <= 8 or size == rows for size in result["n"])
        result["y"][...] = -1  # it is the caller's own
    now = model.stats()
    assert now.in_flight == 0 and now.batches is not None and before.batches is not None
    left = [rows for number, (rows, _) in enumerate(calls) if number not in gone]
    assert now.batches.rows - before.batches.rows >= 1 + sum(left)
    if not gone:
        assert now.bytes_copied_in - before.bytes_copied_in == 8 * (1 + sum(left)), "copied once"
        assert now.batches.calls - before.batches.calls == 1 + len(left)


def _ways(model: Model) -> dict[str, Callable[[Any], Future[Any]]]:
    return {
        "submit": lambda given: model.submit({"x": given}),
        "infer": lambda given: in_thread(lambda: model.infer({"x": given})),
        "call": lambda given: in_thread(lambda: model(given)),
        "async": lambda given: in_thread(lambda: asyncio.run(model.infer_async({"x": given}))),
    }


def test_calls_that_wait_go_together_and_a_lone_one_at_once(gate: Gate) -> None:
    with load(PATIENT) as model:
        assert model.infer(x(1))["n"] == 1, "though the policy would have it wait for ever"
        held = hold(model, gate)
        first, second = model.submit(x(1, 2)), model.submit(x(3))
        gate.let()
        assert held.result(PATIENCE)["n"] == 1
        assert not first.done(), "the caller of the one that was held may come again"
        third = model.submit(x(4, 5, 6))
        assert [one.result(PATIENCE)["n"].tolist() for one in (first, second, third)] == [
            [6, 6],
            [6],
            [6, 6, 6],
        ]
        batches = model.stats().batches
        assert batches is not None
        assert batches.sizes == {1: 2, 6: 1} and batches.batches == 3 and batches.calls == 5
        assert batches.mean_size == 8 / 3 and model.stats().in_flight == 0


def test_after_the_delay_nobody_is_waited_for(gate: Gate) -> None:
    with load(BatchPolicy(max_delay=0.05)) as model:
        held = hold(model, gate)
        two = [model.submit(x(1)), model.submit(x(2))]
        gate.let()
        assert held.result(PATIENCE)
        assert [one.result(PATIENCE)["n"].tolist() for one in two] == [[2], [2]]


def test_a_full_batch_goes_to_a_busy_worker_and_a_large_call_alone(gate: Gate) -> None:
    with load(BatchPolicy(max_size=4, max_delay=1e6)) as model:
        held = hold(model, gate)
        futures = [model.submit(x(*range(rows))) for rows in (3, 1, 5, 2, 3)]
        batches = model.stats().batches
        assert batches is not None and batches.sizes == {1: 1, 2: 1, 4: 1, 5: 1}, "3+1, 5 and 2 are sent"
        gate.let()
        sizes = [4, 4, 5, 2]
        for future, size in zip(futures, sizes, strict=False):
            assert {*future.result(PATIENCE)["n"]} == {size}
        assert held.result(PATIENCE) and futures[-1].cancel()


def test_what_differs_is_not_joined(gate: Gate) -> None:
    specs = {"inputs": [spec("x", "n", "k")], "outputs": [spec("y", "n", "k"), spec("n", "n", dtype="int64")]}
    with load(**specs) as model:
        held = model.submit({"x": np.full((1, 1), -1.0)})
        gate.wait()
        futures = [model.submit({"x": np.ones((2, k))}) for k in (3, 4, 3, 4, 5)]
        gate.let()
        assert held.result(PATIENCE)
        for future, k, size in zip(futures, (3, 4, 3, 4, 5), (4, 4, 4, 4, 2), strict=True):
            assert future.result(PATIENCE)["y"].shape == (2, k)
            assert future.result()["n"].tolist() == [size, size]


def test_texts_and_other_axes(gate: Gate) -> None:
    """Texts lie in no array of fixed size, and rows along another axis not side by side."""
    specs = [spec("t", "n", dtype="string"), spec("x", 3, "n"), spec("s", "n", 2, dtype="bool")]
    with load(EAGER, "echo", inputs=specs, outputs=specs) as model:
        results = []
        start = threading.Barrier(6)

        def work(number: int) -> None:
            start.wait()
            for rows in range(6):
                given = {
                    "x": np.arange(3.0 * rows).reshape(3, rows) + number,
                    "s": np.full((rows, 2), number % 2, bool)[::-1],
                    "t": np.array([f"{number}" * row for row in range(rows)], object),
                }
                out = model.infer(given)
                results.append(all((out[name] == given[name]).all() for name in given))
                assert list(out) == list(given) or set(out) == set(given)

        threads = [in_thread(lambda number=number: work(number)) for number in range(6)]
        for thread in threads:
            thread.result(PATIENCE)
        assert results == [True] * 36


def test_joined_outputs_outlive_what_they_came_with(shared: tuple[Model, Gate]) -> None:
    model, gate = shared
    held = hold(model, gate)
    futures = [model.submit(x(number)) for number in range(5)]
    gate.let()
    kept = [future.result(PATIENCE)["y"] for future in futures][-1]
    del futures, held
    for _ in range(20):
        model.infer(x(7, 7, 7, 7, 7))
    assert kept.tolist() == [40]


@pytest.mark.usefixtures("no_collection")
def test_memory_goes_with_the_last_part_of_an_answer(shared: tuple[Model, Gate]) -> None:
    model, gate = shared
    held = hold(model, gate)
    futures = [model.submit(x(number)) for number in range(3)]
    gate.let()
    parts = [future.result(PATIENCE)["y"] for future in futures]
    one = futures.pop()
    whole = weakref.ref(parts[0].base)
    assert whole() is not None and all(part.base is whole() for part in parts)
    others = [weakref.ref(part) for part in parts[:2]]
    del futures, parts
    wait_until(lambda: not any(other() is not None for other in others))
    assert whole() is not None and one.result()["y"].tolist() == [20]
    del one
    wait_until(lambda: whole() is None)
    assert held.result(PATIENCE)


def wait_until(condition: Callable[[], bool]) -> None:
    """Threads let go of what they had a moment after others have seen it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never comes"
        time.sleep(0.001)


def test_what_a_call_may_give_and_want(shared: tuple[Model, Gate]) -> None:
    model, gate = shared
    held = hold(model, gate)
    some = model.submit({"x": [1.0, 2.0]}, outputs=["n"])
    wrong = model.submit(x(1), outputs=["z"])
    gate.let()
    assert {**some.result(PATIENCE)}.keys() == {"n"}
    with pytest.raises(SpecError, match="'z'"):
        wrong.result(PATIENCE)
    assert held.result(PATIENCE)
    array = model.empty("x", (3,))
    array[:] = 3
    before = model.stats().bytes_copied_in
    assert model(array)["y"].tolist() == [30, 30, 30]
    assert model.stats().bytes_copied_in == before, "alone, it went as it was"


def test_replicas_take_a_batch_each(gate: Gate) -> None:
    with load(replicas=2) as model:
        held = [hold(model, gate), hold(model, gate)]
        futures = [model.submit(x(number)) for number in range(6)]
        gate.let(2)
        for number, future in enumerate(futures):
            assert future.result(PATIENCE)["y"] == 10 * number
        assert all(one.result(PATIENCE) for one in held)


def test_many_threads(shared: tuple[Model, Gate]) -> None:
    model, _ = shared
    before = model.stats().batches

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(60):
            given = random.random(random.integers(0, 20))
            np.testing.assert_array_equal(model.infer({"x": given})["y"], given * 10)

    for done in [in_thread(lambda seed=seed: work(seed)) for seed in range(8)]:
        done.result(PATIENCE)
    batches = model.stats().batches
    assert batches is not None and before is not None
    assert batches.calls - before.calls == 480 and model.stats().in_flight == 0


# ---- going wrong


def test_bad_inputs_disturb_nobody(shared: tuple[Model, Gate]) -> None:
    model, gate = shared
    held = hold(model, gate)
    good = model.submit(x(1))
    before = _errors(model, "SpecError")
    for bad in ({"x": np.ones((2, 2))}, {"x": np.ones(2, np.int32)}, {"z": np.ones(1)}, {}):
        with pytest.raises(SpecError):
            model.submit(bad)
        with pytest.raises(SpecError):
            model.infer(bad)
    gate.let()
    assert good.result(PATIENCE)["n"] == 1 and held.result(PATIENCE)
    assert _errors(model, "SpecError") == before + 8


def test_only_the_call_that_fails_in_the_model_fails(shared: tuple[Model, Gate]) -> None:
    model, gate = shared
    held = hold(model, gate)
    before = _errors(model, "ModelError")
    futures = [model.submit(x(*values)) for values in ((1,), (2, np.nan), (3, 3), (np.nan,))]
    gate.let()
    for place, rows in ((0, [10.0]), (2, [30.0, 30.0])):
        assert futures[place].result(PATIENCE)["y"].tolist() == rows
    for place in (1, 3):
        with pytest.raises(ModelError, match="no number"):
            futures[place].result(PATIENCE)
    assert held.result(PATIENCE) and model.infer(x(5))["y"] == 50
    wait_until(lambda: _errors(model, "ModelError") == before + 2)  # they are counted after they are told
    assert model.stats().in_flight == 0


def _errors(model: Model, kind: str) -> int:
    return model.stats().errors.get(kind, 0)


def test_a_deadline_disturbs_nobody(gate: Gate) -> None:
    with load(grace=None) as model:
        held = hold(model, gate)
        waiting = [model.submit(x(1), timeout=0.01), model.submit(x(2))]
        with pytest.raises(CallTimeout, match="waiting to be sent"):
            model.infer(x(3), timeout=0.01)
        with pytest.raises(CallTimeout, match="waiting to be sent"):
            waiting[0].result(PATIENCE)
        gate.let()
        assert held.result(PATIENCE) and waiting[1].result(PATIENCE)["n"] == 1, "the others were taken out"

        held = hold(model, gate)
        sent = [model.submit({"x": STOP}), model.submit(x(2), timeout=0.2), model.submit(x(4))]
        gate.let()
        gate.wait()  # the batch is in the model
        with pytest.raises(CallTimeout):
            sent[1].result(PATIENCE)
        gate.let()
        assert held.result(PATIENCE) and sent[0].result(PATIENCE)["y"] == -10
        assert sent[2].result(PATIENCE)["y"] == 40
        assert model.stats().in_flight == 0


def test_a_coroutine_that_is_cancelled_is_taken_out(gate: Gate) -> None:
    specs = {"inputs": [spec("x", "n", "k")], "outputs": [spec("y", "n", "k"), spec("n", "n", dtype="int64")]}
    with load(**specs) as model:
        large = 1 << 18  # 2 MiB: copied beside the event loop
        held = model.submit({"x": np.full((1, large), -1.0)})
        gate.wait()

        async def run() -> Any:
            rows = [np.full((rows, large), float(rows)) for rows in (1, 2, 3)]
            tasks = [asyncio.create_task(model.infer_async({"x": one})) for one in rows]
            while model.stats().in_flight < 4:
                await asyncio.sleep(0.001)
            tasks[0].cancel()
            while model.stats().in_flight > 3:
                await asyncio.sleep(0.001)
            gate.let()
            return await asyncio.gather(*tasks, return_exceptions=True)

        outcomes = asyncio.run(run())
        assert isinstance(outcomes[0], asyncio.CancelledError)
        for number in (1, 2):
            assert outcomes[number]["y"].shape == (number + 1, large)
            assert (outcomes[number]["y"] == 10 * (number + 1)).all()
        assert held.result(PATIENCE)


def test_rows_that_do_not_come_back(gate: Gate) -> None:
    with load(EAGER, "first_row", outputs=[spec("y", "rows")]) as model:
        with pytest.raises(SpecError, match=r"output 'y'.*axis 0 is 1, but rows is 3"):
            model(np.ones(3))
        held = hold(model, gate)
        futures = [model.submit(x(1)), model.submit(x(2))]
        gate.let()
        for future in futures:
            with pytest.raises(SpecError, match=r"output 'y'.*2 calls were joined, 2 rows"):
                future.result(PATIENCE)
        assert held.result(PATIENCE)["y"] == -1


# ---- loading and closing


def test_specs_by_which_nothing_can_be_joined() -> None:
    one, other = spec("x", "n", "k"), spec("y", "n", "k")
    for inputs, outputs, policy, message in (
        (None, (other,), EAGER, "none for its inputs"),
        ((one,), None, EAGER, "none for its outputs"),
        ((one,), (other,), EAGER, r"several symbols .*'n', 'k'.*\n.*input x: float64\[n, k\]\n.*output y"),
        (
            (one,),
            (spec("y", 3),),
            EAGER,
            r"no symbol .*\n.*input x: float64\[n, k\]\n.*output y: float64\[3\]",
        ),
        ((spec("x", "n", "n"),), (spec("y", "n"),), EAGER, "no symbol"),
        ((one,), (other,), BatchPolicy(symbol="z"), "'x' has no dimension 'z'"),
    ):
        with pytest.raises(SpecError, match=message):
            Seam("m", inputs, outputs, policy.symbol)
    assert Seam("m", (one,), (other,), "k").inputs == {"x": 1}
    with pytest.raises(SpecError, match="no symbol"):
        load(EAGER, "echo", outputs=[spec("x", 3)])
    with load(EAGER, "echo", outputs=[spec("x", 3)], wait_ready=False) as model:
        with pytest.raises(SpecError, match="no symbol"):
            model(np.ones(3))


def test_arguments() -> None:
    for wrong in (
        {"max_size": 0},
        {"max_size": 1.5},
        {"max_delay": -1},
        {"max_delay": np.inf},
        {"symbol": ""},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BatchPolicy(**wrong)
    with pytest.raises(TypeError, match="BatchPolicy"):
        load(32)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="isolation='process'"):
        load(isolation="none")
    with pytest.raises(ValueError, match="check=True"):
        load(check=False)


def test_closing(gate: Gate) -> None:
    model = load()
    held, waiting = hold(model, gate), model.submit(x(1))
    blocked = in_thread(lambda: model.infer(x(2)))
    while model.stats().in_flight < 3:
        pass
    model.close()
    for future in (held, waiting, blocked):
        with pytest.raises(ModelClosed):
            future.result(PATIENCE)
    with pytest.raises(ModelClosed):
        model.infer(x(1))
    model.close()

    model = load(PATIENT)
    held, waiting = hold(model, gate), model.submit(x(1))
    closing = in_thread(lambda: model.close(drain=True))
    gate.let()
    closing.result(PATIENCE)
    assert held.result(PATIENCE) and waiting.result(PATIENCE)["y"] == 10


def test_calls_are_counted_and_not_batches(gate: Gate) -> None:
    with load(max_pending=3) as model:
        held = hold(model, gate)
        futures = [model.submit(x(1)), model.submit(x(2))]
        with pytest.raises(Overloaded):
            model.infer(x(3))
        futures[0].cancel()
        again = model.submit(x(4))
        gate.let()
        for future in (held, futures[1], again):
            assert future.result(PATIENCE)
        assert model.infer(x(5))["y"] == 50


def test_a_forked_copy_is_refused(shared: tuple[Model, Gate]) -> None:
    model, gate = shared
    model.infer(x(1))
    child = os.fork()
    if child == 0:
        try:
            model.infer(x(1))
        except OpexecError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert model.infer(x(2))["y"] == 20
