"""Ctrl-C at any moment of a call: KeyboardInterrupt for the caller, and the next call on the same model works."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import BatchPolicy, Model, TensorSpec
from tests.loaded import source
from tests.models import Gate
from tests.waiting import until

#: An interruption may fall where an object ends: Python prints that, and goes on.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PACKAGE = os.path.dirname(os.path.abspath(opexec.__file__)) + os.sep
REPOSITORY = str(Path(__file__).parents[2])

CALLER = """
import asyncio, sys, numpy as np, opexec

model = opexec.load(sys.argv[1])
bad, good = {"x": np.array([-1.0])}, {"x": np.array([7.0])}
calls = {
    "infer": lambda: model.infer(bad),
    "call": lambda: model(bad["x"]),
    "submit": lambda: model.submit(bad).result(),
    "infer_async": lambda: asyncio.run(model.infer_async(bad)),
}
try:
    calls[sys.argv[2]]()
    print("no interrupt", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert sys.stdin.readline() == "the model may go on\\n"
for _ in range(5):
    print(model.infer(good, timeout=60)["y"], flush=True)
print(model.submit(good).result(60)["y"], asyncio.run(model.infer_async(good))["y"], flush=True)
model.close()
"""


@pytest.mark.parametrize("way", ["infer", "call", "submit", "infer_async"])
def test_ctrl_c_in_the_middle_of_a_wait(gate: Gate, way: str) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, source("gated"), way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        # SIGINT is ignored in what a shell has started in the background, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with caller:
        try:
            gate.wait()
            caller.send_signal(signal.SIGINT)
            assert caller.stdout is not None and caller.stdin is not None
            assert caller.stdout.readline() == "interrupted\n"
            gate.let()
            caller.stdin.write("the model may go on\n")
            caller.stdin.flush()
            assert caller.stdout.read().split() == ["[70.]"] * 7
            assert caller.wait() == 0
        finally:
            caller.kill()


def test_ctrl_c_goes_to_the_caller_alone() -> None:
    """A terminal sends it to the whole foreground group; the worker is in a session of its own."""
    with opexec.load(source("echo")) as model:
        pid = model.workers[0].pid
        assert os.getpgid(pid) == os.getsid(pid) == pid != os.getpgid(0)


class Interrupter:
    """Raises KeyboardInterrupt in this thread where Python may see Ctrl-C: whenever a function of opexec begins or returns.

    `points` counts these; at number `at` it raises, and once more so many points later, if `again` is told.
    """

    def __init__(self, at: int, again: int = 0) -> None:
        self.points = 0
        self.at = (at, at + again)

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "c_call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.points += 1
            if self.points in self.at:
                raise KeyboardInterrupt

    def run(self, call: Callable[[], Any]) -> bool:
        """Whether the call was interrupted."""
        sys.setprofile(self)
        try:
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False


def interruptions(call: Callable[[], Any], again: int = 0) -> Iterator[int]:
    """Interrupts the call at one point after the other, until one comes through; yields after each. `again`: see `Interrupter`."""
    for at in itertools.count(1):
        interrupter = Interrupter(at, again)
        if not interrupter.run(call) and interrupter.points < at:
            assert at > 10, "nothing was interrupted"
            return
        yield at


def held(model: Model, inputs: dict[str, np.ndarray]) -> int:
    """How many blocks are held when what was interrupted is gone.

    To be asked again: a Future that was interrupted holds the traceback that holds it, and a collection does nothing while another thread's
    is under way.
    """
    gc.collect()
    for _ in range(5):
        model.infer(inputs)
    return model.stats().blocks_held


def some(model: Model, name: str) -> dict[str, np.ndarray]:
    """Inputs of one kind."""
    if name == "empty":
        x = model.empty("x", (5,), np.float64)
        x[...] = 3
        return {"x": x, "y": np.arange(3)}
    if name == "texts":
        return {"x": np.array(["one", "two"], object), "y": np.arange(3)}
    return {"x": np.full(5, 3.0), "y": np.arange(3)}


@pytest.mark.parametrize("kind", ["arrays", "empty", "texts"])
@pytest.mark.parametrize("way", ["infer", "submit"])
def test_ctrl_c_at_every_point_of_a_call(way: str, kind: str) -> None:
    with opexec.load(source("echo")) as model:
        inputs = some(model, kind)
        good = {"x": np.array([7.0])}

        def call() -> Any:
            return model.infer(inputs) if way == "infer" else model.submit(inputs).result(60)

        for _ in range(3):
            call()
        before = model.stats().shared_memory
        for at in interruptions(call):
            for number in range(2):
                result = model.infer(inputs, timeout=60)
                for name, array in inputs.items():
                    np.testing.assert_array_equal(
                        result[name], array, f"interrupted at point {at}, call {number}"
                    )
            assert model.infer(good, timeout=60)["x"] == 7
            assert model.submit(good).result(60)["x"] == 7
            assert model.workers[0].state == "ready"
        del result
        until(lambda: held(model, good) <= 3)  # an interruption may lose a block, and not one each
        assert model.stats().shared_memory <= before + (4 << 20)
    for thread in threading.enumerate():
        if thread.name.startswith("opexec-collector"):
            thread.join(60)
            assert not thread.is_alive(), "it waits for a call that was interrupted"


@pytest.mark.parametrize("way", ["infer", "submit"])
def test_ctrl_c_at_every_point_of_a_call_that_takes_a_seat(way: str) -> None:
    good = {"x": np.array([7.0])}
    with opexec.load(source("echo"), max_pending=2, when_full="wait") as model:

        def call() -> Any:
            return model.infer(good) if way == "infer" else model.submit(good).result(60)

        for at in interruptions(call):
            for _ in range(2):
                assert model.infer(good, timeout=60)["x"] == 7, f"interrupted at point {at}"
        two = [model.submit(good, timeout=60) for _ in range(2)]
        assert all(future.result(60)["x"] == 7 for future in two)


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
@pytest.mark.parametrize("way", ["infer", "submit"])
def test_ctrl_c_at_every_point_of_a_batched_call(gate: Gate, way: str, busy: bool) -> None:
    """Whatever others depend on is done all the same: their calls in the batch, and later ones."""
    specs = {
        "inputs": [TensorSpec("x", "float64", ("rows",))],
        "outputs": [TensorSpec("y", "float64", ("rows",)), TensorSpec("n", "int64", ("rows",))],
    }
    stop, failures = threading.Event(), []
    with opexec.load(
        source("batched"),
        batch=BatchPolicy(max_size=2, max_delay=0.0),
        max_pending=8,
        when_full="wait",
        **specs,
    ) as model:

        def call_all_the_time(value: float) -> None:
            while not stop.is_set():
                try:
                    result = model.infer({"x": np.array([value])}, timeout=60)
                    assert result["y"].tolist() == expected(value)
                except BaseException as error:
                    failures.append(error)
                    return

        def expected(value: float) -> list[float]:
            return [answers[value]]

        answers = {value: float(model.infer({"x": np.array([value])})["y"][0]) for value in (1.0, 2.0, 3.0)}
        others = [threading.Thread(target=call_all_the_time, args=(value,)) for value in (2.0, 3.0) if busy]
        for thread in others:
            thread.start()
        good = {"x": np.array([1.0])}

        def call() -> Any:
            return model.infer(good) if way == "infer" else model.submit(good, timeout=60).result(60)

        try:
            for at in interruptions(call):
                result = model.infer(good, timeout=60)
                assert result["y"].tolist() == expected(1.0), f"interrupted at point {at}"
                assert not failures, f"interrupted at point {at}"
        finally:
            stop.set()
            for thread in others:
                thread.join()
        assert not failures
        assert model.stats().in_flight == 0
        model.close(drain=True)


@pytest.mark.parametrize("again", [1, 6])
@pytest.mark.parametrize("way", ["infer", "submit"])
def test_ctrl_c_twice_loses_no_count_of_a_batched_call(way: str, again: int) -> None:
    """The second one comes while the call cleans up after the first."""
    model = opexec.load(
        source("double"),
        batch=BatchPolicy(max_size=2, max_delay=0.0),
        max_pending=2,
        when_full="wait",
        inputs=[TensorSpec("x", "float64", ("rows",))],
        outputs=[TensorSpec("y", "float64", ("rows",))],
    )
    with model:
        good = {"x": np.array([1.0])}

        def call() -> Any:
            return model.infer(good) if way == "infer" else model.submit(good, timeout=60).result(60)

        def counted() -> tuple[int, int, int]:
            batcher, admission = model._made, model._admission  # type: ignore[attr-defined]
            return batcher._under_way, batcher._sent, admission._taken

        call()
        for at in interruptions(call, again):
            assert model.infer(good, timeout=60)["y"] == 2, f"interrupted at points {at} and {at + again}"
            end = time.monotonic() + 60
            while counted() != (0, 0, 0):  # of an interrupted call others may still have to see to the end
                assert time.monotonic() < end, f"{counted()}: interrupted at points {at} and {at + again}"
                time.sleep(0.001)


def test_ctrl_c_at_every_point_of_a_failing_call() -> None:
    with opexec.load(source("failing")) as model:
        bad, good = {"how": np.array("raise")}, {"how": np.array("good")}

        def call() -> None:
            with pytest.raises(opexec.ModelError):
                model.infer(bad)

        for _ in interruptions(call):
            assert model.infer(good, timeout=60)["output"] == 0
            call()


def test_ctrl_c_while_other_threads_call() -> None:
    """The interrupted thread may have been reading for all: somebody else takes over."""
    with opexec.load(source("double")) as model:
        stop, failures = threading.Event(), []

        def work(seed: int) -> None:
            number = 0
            try:
                while not stop.is_set():
                    number += 1
                    assert model.infer({"x": np.array([seed, number])}, timeout=60)["y"].tolist() == [
                        2 * seed,
                        2 * number,
                    ]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        x = {"x": np.array([5.0])}
        try:
            for at in range(1, 120):
                Interrupter(at).run(lambda: model.infer(x, timeout=60))
                assert model.infer(x, timeout=60)["y"] == 10
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures, failures


@pytest.mark.usefixtures("no_collection")
def test_ctrl_c_by_a_signal_at_many_moments() -> None:
    """The same with real signals, which come between any two instructions."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with opexec.load(source("double")) as model:
        x = {"x": np.arange(1000.0)}
        before = signal.signal(signal.SIGALRM, interrupt)
        interrupted = 0
        try:
            for round in range(400):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 + round * 1e-6)
                    for _ in range(1000):
                        model.infer(x)
                except KeyboardInterrupt:
                    interrupted += 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                np.testing.assert_array_equal(model.infer(x, timeout=60)["y"], x["x"] * 2)
        except KeyboardInterrupt:
            pytest.fail("an interrupt came late, out of a finaliser")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert interrupted > 300
        assert model.submit(x).result(60)["y"][1] == 2
        assert asyncio.run(model.infer_async(x))["y"][1] == 2
        until(lambda: held(model, x) <= 10)
        assert model.stats().shared_memory < 16 << 20
