"""Replacing a worker: what the caller made with `empty` stays good, and so does everything else it holds."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

import opexec
from opexec import WorkerDied
from tests.loaded import PYTHONS, interpreter, source


@pytest.mark.parametrize("python", PYTHONS)
def test_arrays_from_empty_outlive_the_worker(python: str) -> None:
    with opexec.load(source("addresses"), env=interpreter(python)) as model:
        first = model.empty("x", (1000, 3), np.float64)
        big = model.empty("x", (3 << 20,), np.uint8)  # in a segment of its own
        part = first[10:20]
        arrays = {"first": first, "part": part, "row": first[7], "big": big, "end": big[-100:]}
        for number in range(4):
            if number:
                pid = model.workers[0].pid
                model.restart()  # type: ignore[attr-defined]
                assert model.workers[0].pid != pid
            for _ in range(2):
                before = model.stats().bytes_copied_in
                found = model.infer(arrays)
                assert model.stats().bytes_copied_in == before, "travelled as what they are"
                assert all(array[1] == 1 for array in found.values())
                assert found["part"][0] - found["first"][0] == 10 * 24
            more = model.empty("x", (5,), np.float64)
            assert not np.shares_memory(more, first)
    with opexec.load(source("total"), env=interpreter(python)) as model:
        x = model.empty("x", (1000,), np.float64)
        for number in range(1, 4):
            x[...] = number
            assert model.infer({"x": x})["sum"] == 1000 * number
            model.restart()  # type: ignore[attr-defined]
            x[500:] = 0
            assert model.infer({"x": x})["sum"] == 500 * number
            assert model.infer({"x": x[499:]})["sum"] == number


def test_outputs_outlive_the_worker() -> None:
    with opexec.load(source("echo")) as model:
        held = []
        for number in range(5):
            held.append(model.infer({"x": np.full(50_000, number)})["x"])
            held.append(held[-1][100:200])
            model.restart()  # type: ignore[attr-defined]
        for index, array in enumerate(held):
            assert (array == index // 2).all()
        del held[::2]
        for _ in range(20):  # the new worker is told of none of these
            model.infer({"x": np.full(50_000, -1)})
        for index, array in enumerate(held):
            assert (array == index).all()


def test_each_signature_works_with_the_new_worker() -> None:
    with opexec.load(source("echo")) as model:
        signatures = [{"x": np.arange(size)} for size in range(100)] + [
            {"t": np.array(["a" * size], object)} for size in range(50)
        ]
        for _ in range(2):
            for inputs in signatures:
                for name, array in model.infer(inputs).items():
                    np.testing.assert_array_equal(array, inputs[name])
            model.restart()  # type: ignore[attr-defined]


def test_the_specs_are_those_of_the_new_worker(tmp_path: object) -> None:
    with opexec.load(source("double"), inputs=[{"name": "x", "dtype": "float64", "shape": ["n"]}]) as model:
        model.restart()  # type: ignore[attr-defined]
        with pytest.raises(opexec.SpecError):
            model.infer({"x": np.zeros((2, 2))})
        assert model(np.ones(2))["y"].tolist() == [2, 2]


def test_a_restart_of_a_model_that_is_called_all_the_while() -> None:
    with opexec.load(source("double")) as model:
        stop, outcomes = threading.Event(), []

        def work(seed: int) -> None:
            done = died = 0
            while not stop.is_set():
                try:
                    assert model.infer({"x": np.array([seed, done])}, timeout=60)["y"].tolist() == [
                        2 * seed,
                        2 * done,
                    ]
                    done += 1
                except WorkerDied as error:
                    assert "restart()" in str(error) or "SIGKILL" in str(error)
                    died += 1
            outcomes.append(done)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for number in range(4):
            calls = model.stats().calls
            while model.stats().calls < calls + 20:
                pass
            if number % 2:
                os.kill(model.workers[0].pid, signal.SIGKILL)
            model.restart()  # type: ignore[attr-defined]
        stop.set()
        for thread in threads:
            thread.join(60)
        assert len(outcomes) == 3, "a thread hangs, or failed"
        assert model.infer({"x": np.array([1])})["y"] == 2
