"""Calls larger than the arena make it grow; a limit is an error that says so and loses nothing; outputs that are held block nobody."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import opexec
from opexec import Model, OutOfSharedMemory
from opexec.connection.output_memory import OutputMemory
from opexec.ipc.faults import PeerGone
from opexec.ipc.segment import Segment
from opexec.memory import SharedMemory
from tests.loaded import PYTHONS, interpreter, source

MIB = 1 << 20


def floats(mib: float) -> np.ndarray:
    return np.arange(int(mib * MIB / 8), dtype=np.float64)


@pytest.mark.parametrize("python", PYTHONS)
def test_inputs_and_outputs_larger_than_the_arena(python: str) -> None:
    with opexec.load(source("echo"), env=interpreter(python)) as model:
        for mib in (0.5, 3, 17, 70, 1, 33):
            x = floats(mib)
            np.testing.assert_array_equal(model.infer({"x": x})["x"], x)
        results = model(a=floats(20), b=floats(30), c=np.zeros(0))
        assert (results["a"].nbytes, results["b"][-1], results["c"].shape) == (
            20 * MIB,
            30 * MIB / 8 - 1,
            (0,),
        )
        for _ in range(5):
            model.infer({"x": floats(33)})
        used = model.stats().shared_memory
        for _ in range(10):
            model.infer({"x": floats(33)})
        assert model.stats().shared_memory == used, "blocks that came back are used again"


def test_a_large_output_of_a_small_input() -> None:
    with opexec.load(source("growing")) as model:
        for count in (10, 10**7, 1, 3 * 10**6):
            output = model(np.array(count))
            assert output.shape == (count,) and output[-1] == count - 1


def test_an_array_of_empty_larger_than_the_arena() -> None:
    with opexec.load(source("total")) as model:
        x = model.empty("x", (5, MIB), np.float64)
        x[...] = 1
        assert model.infer({"x": x})["sum"] == 5 * MIB
        y = model.empty("x", (7, MIB), np.float64)
        y[...] = 2
        assert model.infer({"x": y[1:]})["sum"] == 12 * MIB
        assert model.stats().bytes_copied_in == 0


@pytest.fixture
def limited() -> Iterator[Model]:
    """A model with 16 MiB, of which about 2.3 are taken from the start."""
    with opexec.load(source("echo"), shm_limit="16MiB") as model:
        yield model


def assert_names_the_limit(error: OutOfSharedMemory, holds: str) -> None:
    assert re.search(r"shm_limit=16 MiB, [\d.]+ MiB of it in use, leaves [\d.]+ [MK]?i?B", str(error)), error
    assert re.search(holds, str(error)), error


def test_an_input_past_the_limit(limited: Model) -> None:
    big, small = floats(20), floats(0.01)
    before = limited.stats()
    for call in (
        lambda: limited.infer({"x": big}),
        lambda: limited(big),
        lambda: limited.submit({"x": big}),
        lambda: asyncio.run(limited.infer_async({"x": big})),
    ):
        with pytest.raises(OutOfSharedMemory) as caught:
            call()
        assert isinstance(caught.value, MemoryError)
        assert_names_the_limit(caught.value, "20 MiB of shared memory are needed")
        np.testing.assert_array_equal(limited.infer({"x": small})["x"], small)
    with pytest.raises(OutOfSharedMemory, match="raise shm_limit"):
        limited.empty("x", big.shape, np.float64)
    assert limited.stats().shared_memory == before.shared_memory


def test_an_output_past_the_limit() -> None:
    with opexec.load(source("growing"), shm_limit="16MiB") as model:
        held = [model(np.array(1000 + number)) for number in range(20)]
        for call in (
            lambda: model.infer({"count": np.array(3 * MIB)}),
            lambda: model(count=np.array(3 * MIB)),
            lambda: model.submit({"count": np.array(3 * MIB)}).result(),
            lambda: asyncio.run(model.infer_async({"count": np.array(3 * MIB)})),
        ):
            with pytest.raises(OutOfSharedMemory) as caught:
                call()
            assert_names_the_limit(caught.value, "no room for the outputs: 24 MiB")
            assert "20 output blocks are held by arrays of the caller" in str(caught.value)
            assert model(np.array(5)).tolist() == [0, 1, 2, 3, 4]
        for number, output in enumerate(held):
            assert output.shape == (1000 + number,) and (output == np.arange(1000 + number)).all()


def test_outputs_that_are_held_until_there_is_no_more_room(limited: Model) -> None:
    held = []
    with pytest.raises(OutOfSharedMemory) as caught:
        while True:
            held.append(limited.infer({"x": floats(1)})["x"])
            assert len(held) < 16
    assert_names_the_limit(caught.value, "output blocks are held by arrays of the caller")
    assert len(held) >= 8
    # Not even now is anybody blocked, nor is anything lost.
    assert limited.infer({"x": floats(0.01)})["x"][-1] == floats(0.01)[-1]
    for output in held:
        np.testing.assert_array_equal(output, floats(1))
    del held[3:], output, caught
    gc.collect()
    for _ in range(30):
        np.testing.assert_array_equal(limited.infer({"x": floats(1)})["x"], floats(1))


def test_memory_of_dropped_arrays_is_there_for_copies(limited: Model) -> None:
    for _ in range(3):
        arrays = [limited.empty("x", floats(1).shape, np.float64) for _ in range(5)]
        del arrays
        np.testing.assert_array_equal(limited.infer({"x": floats(3)})["x"], floats(3))
    for kind in ("a", "b", "c"):  # each signature has blocks of its own, until there is no room for that
        for mib in (1, 1.5, 2, 2.5):
            assert limited.infer({kind: floats(mib)})[kind][-1] == floats(mib)[-1]


def test_calls_at_once_near_the_limit(limited: Model) -> None:
    def work(seed: int) -> int:
        done = 0
        for number in range(20):
            x = floats(1) + seed * 100 + number
            try:
                np.testing.assert_array_equal(limited.infer({"x": x})["x"], x)
                done += 1
            except OutOfSharedMemory:
                pass
        return done

    with ThreadPoolExecutor(8) as pool:
        done = sum(outcome.result(60) for outcome in [pool.submit(work, seed) for seed in range(8)])
    assert done > 0
    np.testing.assert_array_equal(limited.infer({"x": floats(1)})["x"], floats(1))
    assert limited.stats().shared_memory <= 16 * MIB


def test_many_futures_at_once_past_the_limit(limited: Model) -> None:
    futures = []
    with pytest.raises(OutOfSharedMemory, match="calls are in flight"):
        for number in range(100):
            futures.append(limited.submit({"x": floats(1) + number}))
    for number, future in enumerate(futures):
        try:
            np.testing.assert_array_equal(future.result(60)["x"], floats(1) + number)
        except OutOfSharedMemory:
            pass
        del future
    futures.clear()
    gc.collect()
    np.testing.assert_array_equal(limited.infer({"x": floats(0.5)})["x"], floats(0.5))


def test_a_limit_too_low_to_start() -> None:
    with pytest.raises(OutOfSharedMemory, match="cannot start.*shm_limit=64 KiB"):
        opexec.load(source("echo"), shm_limit="64KiB")
    with opexec.load(source("echo"), shm_limit="3MiB") as model:
        assert model.infer({"x": np.ones(3)})["x"].tolist() == [1, 1, 1]
        with pytest.raises(OutOfSharedMemory):
            model.infer({"x": floats(1.5)})
        assert model.infer({"x": np.ones(3)})["x"].tolist() == [1, 1, 1]


def test_a_limit_holds_over_restarts(limited: Model) -> None:
    used = []
    for _ in range(5):
        for _ in range(3):
            limited.infer({"x": floats(2)})
        limited.restart()  # type: ignore[attr-defined]
        used.append(limited.stats().shared_memory)
        np.testing.assert_array_equal(limited.infer({"x": floats(2)})["x"], floats(2))
    assert used[1:] == used[:1] * 4
    limited.close()
    assert limited.stats().shared_memory == 0


def test_outputs_by_the_thousand_are_held_and_released() -> None:
    with opexec.load(source("echo")) as model:
        held = [model.infer({"x": np.array([number])})["x"] for number in range(5000)]
        assert [int(output[0]) for output in held] == [*range(5000)]
        assert model.stats().blocks_held == 5000
        del held[::2]
        for number in range(5000, 7500):
            held.append(model.infer({"x": np.array([number])})["x"])
        assert [int(output[0]) for output in held] == [*range(1, 5000, 2), *range(5000, 7500)]
        held.clear()
        for number in range(500):  # few go with each call
            assert model.infer({"x": np.array([number])})["x"] == number
        assert model.stats().blocks_held <= 1


def test_room_that_is_given_while_the_connection_is_closed() -> None:
    memory, sent = SharedMemory(None), []

    class Channel:
        segments: dict[int, object] = {}

        class control:
            send = staticmethod(lambda message, *more, **named: sent.append(message["type"]))

    outputs = OutputMemory(Channel(), memory, threading.Lock())  # type: ignore[arg-type]
    outputs.open(None)
    forget = memory.forget

    def give_meanwhile(segment: Segment) -> None:
        memory.forget = forget  # type: ignore[method-assign]
        with pytest.raises(PeerGone):
            outputs.give_room(MIB)
        forget(segment)

    memory.forget = give_meanwhile  # type: ignore[method-assign]
    outputs.close()
    assert sent == ["room"] and memory.used == 0
