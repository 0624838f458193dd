"""The stage "queue": how long calls wait for room in `max_pending`, or for the rest of their batch, before a worker is given them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import opexec
from opexec import BatchPolicy, CallTimeout, Model, TensorSpec
from opexec.connection.timing import Sampler
from opexec.metrics import STAGES
from opexec.metrics.latency import QUEUE, Latency
from tests.loaded import in_thread, source
from tests.models import Gate
from tests.waiting import PATIENCE, until

STOP, GO = {"x": np.array([-1.0])}, {"x": np.array([1.0])}
SECOND = 1_000_000_000


class Clock:
    """Stands still but for when it is told to go on."""

    def __init__(self) -> None:
        self.now = 5 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("supervision.admission", "batching.batcher", "batching.sending", "batching.model"):
        monkeypatch.setattr(f"opexec.{module}.now", clock)
    return clock


def one_at_a_time() -> Model:
    return opexec.load(source("gated"), max_pending=1, when_full="wait", timeout=PATIENCE)


def batched(**arguments: Any) -> Model:
    specs = {"inputs": [TensorSpec("x", "float64", ["n"])], "outputs": [TensorSpec("y", "float64", ["n"])]}
    policy = BatchPolicy(max_size=8, max_delay=0.0)
    return opexec.load(source("gated"), batch=policy, timeout=PATIENCE, **{**specs, **arguments})


def hold(model: Model, gate: Gate) -> Any:
    """Have the worker stop at the gate: what is called now waits."""
    future = model.submit(STOP)
    gate.wait()
    return future


async def asynchronous(model: Model) -> Any:
    return await model.infer_async(GO)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.infer(GO),
        lambda model: model(GO["x"]),
        lambda model: model.submit(GO).result(PATIENCE),
        lambda model: asyncio.run(asynchronous(model)),
    ],
    ids=["infer", "call", "submit", "infer_async"],
)
def test_who_waits_for_room_is_counted_with_the_time_it_waited(
    call: Callable[[Model], Any], gate: Gate, clock: Clock
) -> None:
    with one_at_a_time() as model:
        model.infer(GO)
        assert QUEUE not in model.stats().latency, "one that does not wait is not among them"
        held = hold(model, gate)
        later = in_thread(lambda: call(model))
        until(lambda: any(seat.since for seat in model.admission._waiting))  # type: ignore[attr-defined]
        clock.now += 2 * SECOND
        gate.let()
        later.result(PATIENCE)
        held.result(PATIENCE)
        found = model.stats().latency
        assert tuple(found) == (QUEUE, *STAGES)
        assert (found[QUEUE].count, found[QUEUE].max) == (1, 2.0)


def test_who_waits_in_vain_is_none_of_them(gate: Gate) -> None:
    with one_at_a_time() as model:
        held = hold(model, gate)
        with pytest.raises(CallTimeout):
            model.infer(GO, timeout=0.01)
        gate.let()
        held.result(PATIENCE)
        assert QUEUE not in model.stats().latency


def test_calls_of_a_batch_wait_for_the_rest_of_it(gate: Gate, clock: Clock) -> None:
    with batched() as model:
        model.infer(GO)
        held = hold(model, gate)
        assert QUEUE not in model.stats().latency, "who calls alone does not wait"
        joined = []
        for _ in range(3):
            joined.append(model.submit(GO))
            clock.now += SECOND
        gate.let()
        for one in (held, *joined):
            one.result(PATIENCE)
        found = model.stats().latency[QUEUE]
        assert (found.count, found.mean, found.max) == (3, 2.0, 3.0)


def test_a_call_that_waits_for_both_is_counted_once(gate: Gate, clock: Clock) -> None:
    with batched(max_pending=1, when_full="wait") as model:
        held = hold(model, gate)
        later = in_thread(lambda: model.infer(GO))
        until(lambda: any(seat.since for seat in model._admission._waiting))  # type: ignore[attr-defined]
        clock.now += SECOND
        gate.let()
        later.result(PATIENCE)
        held.result(PATIENCE)
        found = model.stats().latency[QUEUE]
        assert (found.count, found.max) == (1, 1.0)


def test_calls_that_are_run_again_one_by_one_have_waited_once(gate: Gate) -> None:
    specs = {"outputs": [TensorSpec("y", "float64", ["n"]), TensorSpec("n", "int64", ["n"])]}
    with opexec.load(
        source("batched"),
        inputs=[TensorSpec("x", "float64", ["n"])],
        batch=BatchPolicy(max_delay=0.0),
        timeout=PATIENCE,
        **specs,
    ) as model:
        held = hold(model, gate)
        bad, good = model.submit({"x": np.array([np.nan])}), model.submit(GO)
        gate.let()
        assert isinstance(bad.exception(PATIENCE), opexec.ModelError)
        assert good.result(PATIENCE)["y"] == 10 and held.result(PATIENCE)
        assert model.stats().latency[QUEUE].count == 2


def test_prometheus_has_it_too(gate: Gate) -> None:
    from urllib.request import urlopen

    with batched() as model, opexec.metrics.serve({"m": model}) as server:
        held = hold(model, gate)
        later = model.submit(GO)
        gate.let()
        held.result(PATIENCE), later.result(PATIENCE)
        with urlopen(server.url, timeout=PATIENCE) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
        counts = [
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "opexec_call_seconds_count" and sample.labels["stage"] == QUEUE
        ]
        assert counts == [1]


def test_waits_are_all_counted_though_nobody_looks() -> None:
    latency = Latency(Sampler())
    for _ in range(10_000):
        latency.add_wait(7, 8)
    assert len(latency._waits) < 5000
    assert latency.summaries()[QUEUE].count == latency.buckets()[QUEUE].count == 20_000


def test_who_waited_waits_for_nobody_who_reads() -> None:
    latency = Latency(Sampler())
    with latency._lock:
        thread = threading.Thread(target=latency.add_wait, args=range(5000))
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert latency.summaries()[QUEUE].count == 5000
