"""A forked copy of the caller shares its memory with it: the copy is told at once that the model is not its own, and the parent goes on."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import select
import signal
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Model, OpexecError
from tests.loaded import source
from tests.models import Gate

X = np.arange(100_000.0)


def in_a_copy(call: Callable[[], Any]) -> Any:
    """What `call` returns (or its exception, as text, if it raises) in a forked child, which does not hang."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(60)
            try:
                outcome = call()
            except BaseException as error:
                outcome = "".join(traceback.format_exception(error))
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(outcome, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the copy did not come to its end"
    return pickle.loads(said)


def refusals(model: Model) -> dict[str, str]:
    """What each use of a model raises, as the name of the class and the message."""
    calls: dict[str, Callable[[], Any]] = {
        "infer": lambda: model.infer({"x": X}),
        "call": lambda: model(x=X),
        "submit": lambda: model.submit({"x": X}),
        "infer_async": lambda: asyncio.run(model.infer_async({"x": X})),
        "empty": lambda: model.empty("x", (3,), np.float64),
        "restart": lambda: model.restart(),  # type: ignore[attr-defined]
    }
    said = {}
    for name, call in calls.items():
        try:
            call()
            said[name] = "nothing"
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said


def assert_refused(said: Any) -> None:
    assert isinstance(said, dict), said
    for name, words in said.items():
        assert words.startswith(
            f"OpexecError: model 'models:double' belongs to process {os.getpid()}, which forked"
        ), (name, words)
        assert "load the model in the process that uses it" in words


def assert_works(model: Model) -> None:
    for _ in range(3):
        np.testing.assert_array_equal(model.infer({"x": X})["y"], X * 2)
    np.testing.assert_array_equal(model.submit({"x": X}).result(60)["y"], X * 2)
    np.testing.assert_array_equal(asyncio.run(model.infer_async({"x": X}))["y"], X * 2)


@pytest.fixture
def model() -> Any:
    with opexec.load(source("double")) as model:
        yield model


def test_a_copy_is_refused_and_the_parent_goes_on(model: Model) -> None:
    assert_works(model)
    for _ in range(3):
        assert_refused(in_a_copy(lambda: refusals(model)))
        assert_works(model)


def test_a_copy_that_closes_or_drops_the_model_closes_nothing(model: Model) -> None:
    output = model.infer({"x": X})["y"]

    def drop() -> list[float]:
        nonlocal output
        kept = output[:3].tolist()
        del output
        gc.collect()
        model.close()
        model.close()
        with model:
            pass
        return kept

    assert in_a_copy(drop) == [0, 2, 4]
    for _ in range(50):
        np.testing.assert_array_equal(model.infer({"x": X})["y"], X * 2)
    np.testing.assert_array_equal(output, X * 2)
    assert model.workers[0].state == "ready"


def test_a_copy_may_have_a_model_of_its_own(model: Model) -> None:
    def own() -> list[float]:
        with opexec.load(source("double")) as mine:
            assert_works(mine)
            return mine.infer({"x": X[:3]})["y"].tolist()

    assert in_a_copy(own) == [0, 2, 4]
    assert_works(model)


def test_a_copy_can_read_what_it_was_given(model: Model) -> None:
    output = model.infer({"x": X})["y"]
    assert in_a_copy(lambda: float(output.sum())) == float(X.sum() * 2)


def test_a_copy_made_while_other_threads_call(model: Model) -> None:
    """Whatever lock they hold at that moment, the copy waits for none."""
    stop, failures = threading.Event(), []

    def work() -> None:
        try:
            while not stop.is_set():
                assert model.infer({"x": X[:10]}, timeout=60)["y"][1] == 2
                assert model.submit({"x": X[:10]}).result(60)["y"][1] == 2
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()

    def everything() -> dict[str, str]:
        said = refusals(model)
        model.close()
        return said

    try:
        for _ in range(10):
            assert_refused(in_a_copy(everything))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert_works(model)


def test_a_copy_made_in_the_middle_of_a_call(gate: Gate) -> None:
    with opexec.load(source("gated")) as model:
        future = model.submit({"x": np.array([-1.0])})
        gate.wait()

        def ask() -> str:
            try:
                model.infer({"x": np.array([1.0])})
            except OpexecError as error:
                return type(error).__name__
            return "nothing"

        assert in_a_copy(ask) == "OpexecError"
        gate.let()
        assert future.result(60)["y"] == -10
        assert model.infer({"x": np.array([4.0])})["y"] == 40


def test_the_end_of_a_copy_leaves_the_worker_alone(model: Model) -> None:
    pidfd = os.pidfd_open(model.workers[0].pid)
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert not select.select([pidfd], [], [], 0)[0]
    os.close(pidfd)
    assert_works(model)
