"""A worker that dies, whenever and however: everybody who waits for it is told at once what happened, and a new one heals it."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import opexec
from opexec import LoadError, Model, ModelClosed, WorkerDied
from tests.loaded import PYTHONS, in_thread, interpreter, source
from tests.models import Gate
from tests.worker_processes import workers

PATIENCE = 60.0

# What is told -> exit code, signal.
DEATHS = {
    "exit": (3, None),
    "SIGKILL": (None, "SIGKILL"),
    "SIGTERM": (None, "SIGTERM"),
    "SIGSEGV": (None, "SIGSEGV"),
    "SIGABRT": (None, "SIGABRT"),
}


def wait_until_dead(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)


def kill(model: Model, number: int = signal.SIGKILL) -> int:
    pid = model.workers[0].pid
    pidfd = os.pidfd_open(pid)
    os.kill(pid, number)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)
    return pid


def children() -> set[int]:
    """Processes that this one has started and that are there still, zombies included."""
    gc.collect()
    return {child.pid for child in psutil.Process().children(recursive=True)}


def segments_in_dev_shm() -> list[str]:
    """This process's: another one's may be there for as long as it takes to unlink it, or for good where it was killed in that time."""
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"opexec-{os.getpid()}-")]


def assert_says(error: WorkerDied, how: str, stage: str) -> None:
    exit_code, name = DEATHS[how]
    assert (error.exit_code, error.signal, error.stage) == (exit_code, name, stage)
    what = f"exited with code {exit_code}" if name is None else f"was killed by {name}"
    assert what in str(error)
    assert {"load": "while loading its model", "call": "while running a call", "idle": "while idle"}[
        stage
    ] in str(error)
    assert error.pid > 0 and str(error.pid) in str(error)


def assert_last_words(error: WorkerDied) -> None:
    lines = list(error.stderr)
    assert lines[:1] == ["first line"], lines
    assert lines[1].startswith("last words"), lines  # a crash adds where it happened
    assert "    last words" in str(error) and "not an error" not in str(error)


def assert_works(model: Model) -> None:
    assert str(model(np.array("fine"))) == "fine"
    assert str(model.submit({"how": np.array("fine")}).result(PATIENCE)["output"]) == "fine"
    assert str(asyncio.run(model.infer_async({"how": np.array("fine")}))["output"]) == "fine"


@pytest.fixture(autouse=True)
def nothing_stays() -> Any:
    before = children()
    yield
    assert children() <= before, "a worker, or a child of one, is left behind"
    while segments_in_dev_shm():  # a thread that was about to replace a worker may be unlinking one
        pass


# ---- while loading


@pytest.mark.parametrize(
    ("how", "python"),
    [
        *((how, "caller's") for how in ("exit", "SIGKILL", "SIGSEGV")),
        pytest.param("SIGSEGV", "3.7", marks=pytest.mark.slow),
    ],
)
def test_while_loading(how: str, python: str) -> None:
    with pytest.raises(WorkerDied) as caught:
        opexec.load(source(f"{how}_while_loading"), env=interpreter(python))
    assert_says(caught.value, how, "load")
    assert_last_words(caught.value)


def test_killed_from_outside_while_loading(gate: Gate) -> None:
    loading = in_thread(lambda: opexec.load(source("gated_while_loading")))
    gate.wait()
    (worker,) = workers()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied) as caught:
        loading.result(PATIENCE)
    assert_says(caught.value, "SIGKILL", "load")
    assert caught.value.pid == worker.pid
    assert "the kernel counted no out-of-memory kill" in str(caught.value)


def test_a_caller_that_is_interrupted_while_loading_leaves_no_worker(gate: Gate) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        gate.wait()
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            opexec.load(source("gated_while_loading"))
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)


# ---- while running


@pytest.mark.parametrize(
    ("how", "python"),
    [
        *((how, "caller's") for how in DEATHS),
        *(pytest.param(how, "3.7", marks=pytest.mark.slow) for how in ("exit", "SIGSEGV")),
    ],
)
def test_while_running(how: str, python: str) -> None:
    with opexec.load(source("mortal"), env=interpreter(python), restart=False) as model:
        assert_works(model)
        pid = model.workers[0].pid
        with pytest.raises(WorkerDied) as caught:
            model.infer({"how": np.array(how)})
        assert caught.value.pid == pid
        assert_says(caught.value, how, "call")
        assert_last_words(caught.value)
        assert model.workers[0].state == "stopped"
        for call in (
            lambda: model.infer({"how": np.array("fine")}),
            lambda: model(np.array("fine")),
            lambda: model.submit({"how": np.array("fine")}),
            lambda: asyncio.run(model.infer_async({"how": np.array("fine")})),
        ):
            with pytest.raises(WorkerDied) as again:
                call()
            assert str(again.value) == str(caught.value) and again.value is not caught.value
            assert (again.value.exit_code, again.value.signal) == DEATHS[how]
        model.restart()  # type: ignore[attr-defined]
        assert_works(model)
        assert model.workers[0].pid != pid and model.workers[0].state == "ready"


@pytest.mark.parametrize("python", PYTHONS)
def test_everybody_who_waits_is_told(gate: Gate, python: str) -> None:
    with opexec.load(source("mortal"), env=interpreter(python), restart=False) as model:
        bad = {"how": np.array("SIGSEGV"), "stop": np.array(True)}
        fine = {"how": np.array("fine"), "stop": np.array(False)}
        first = in_thread(lambda: model.infer(bad))
        gate.wait()
        late = pytest.raises(opexec.CallTimeout, model.infer, fine, timeout=0.05)
        assert late is not None
        waiting = [first]
        for _ in range(3):
            waiting.append(in_thread(lambda: model.infer(fine)))
            waiting.append(in_thread(lambda: model(**fine)))
            waiting.append(model.submit(fine))
            waiting.append(in_thread(lambda: asyncio.run(model.infer_async(fine))))
            waiting.append(in_thread(lambda: model.infer(fine, timeout=PATIENCE)))
        while model.stats().calls < len(waiting) + 1:
            pass
        gate.let()
        errors = []
        for call in waiting:
            with pytest.raises(WorkerDied) as caught:
                call.result(PATIENCE)
            errors.append(caught.value)
            assert_says(caught.value, "SIGSEGV", "call")
        assert len({id(error) for error in errors}) == len(errors), "each has an exception of its own"
        for _ in range(2):
            model.restart()  # type: ignore[attr-defined]
            assert_works(model)


def test_many_coroutines_of_one_loop_are_told(gate: Gate) -> None:
    async def main(model: Model) -> None:
        calls = [asyncio.ensure_future(model.infer_async({"x": np.array([-1.0])})) for _ in range(20)]
        await asyncio.to_thread(gate.wait)
        os.kill(model.workers[0].pid, signal.SIGKILL)
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, WorkerDied) and outcome.signal == "SIGKILL"
        with pytest.raises(WorkerDied):
            await model.infer_async({"x": np.array([1.0])})
        model.restart()  # type: ignore[attr-defined]
        assert (await model.infer_async({"x": np.array([1.0])}))["y"] == 10

    with opexec.load(source("gated"), restart=False) as model:
        asyncio.run(main(model))


def test_what_was_answered_before_the_death_is_good() -> None:
    """Futures whose answers lie in the ring, not yet read, when the worker dies behind them."""
    with opexec.load(source("mortal"), restart=False) as model:
        for _ in range(5):
            calls = [model.submit({"how": np.array("fine")}) for _ in range(20)]
            calls.append(model.submit({"how": np.array("exit")}))
            calls.append(model.submit({"how": np.array("fine")}))
            for call in calls[:20]:
                assert str(call.result(PATIENCE)["output"]) == "fine"
            for call in calls[20:]:
                with pytest.raises(WorkerDied):
                    call.result(PATIENCE)
            model.restart()  # type: ignore[attr-defined]


def test_outputs_and_inputs_survive(gate: Gate) -> None:
    with opexec.load(source("gated"), restart=False) as model:
        x = model.empty("x", (30_000,), np.float64)
        x[...] = 3
        output = model.infer({"x": x})["y"]
        part = output[100:200]
        kill(model)
        with pytest.raises(WorkerDied):
            model.infer({"x": x})
        x[...] = 4
        assert (output == 30).all() and (part == 30).all()
        model.restart()  # type: ignore[attr-defined]
        before = model.stats().bytes_copied_in
        assert (model.infer({"x": x})["y"] == 40).all() and (model.infer({"x": x[5:9]})["y"] == 40).all()
        assert model.stats().bytes_copied_in == before
        assert (output == 30).all()


# ---- while idle


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_while_idle(number: signal.Signals) -> None:
    with opexec.load(source("mortal"), restart=False) as model:
        assert_works(model)
        pid = kill(model, number)
        assert model.workers[0].state == "stopped"
        with pytest.raises(WorkerDied) as caught:
            model(np.array("fine"))
        assert_says(caught.value, number.name, "idle")
        assert caught.value.pid == pid
        model.restart()  # type: ignore[attr-defined]
        assert_works(model)


def test_before_the_first_call() -> None:
    with opexec.load(source("echo"), restart=False) as model:
        kill(model)
        for call in (
            lambda: model.submit({"x": np.ones(1)}).result(PATIENCE),
            lambda: asyncio.run(model.infer_async({"x": np.ones(1)})),
            lambda: model.infer({"x": np.ones(1)}),
        ):
            with pytest.raises(WorkerDied):
                call()


def test_closing_after_a_death_nobody_has_noticed() -> None:
    model = opexec.load(source("echo"))
    kill(model)
    model.close()
    with pytest.raises(ModelClosed):
        model.infer({"x": np.ones(1)})


def test_restarting_a_model_whose_factory_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("def factory():\n    return lambda x: x + 1\n")
    with opexec.load(f"{path}:factory", restart=False) as model:
        assert model(np.array(1)) == 2
        path.write_text("def factory():\n    raise RuntimeError('not today')\n")
        with pytest.raises(LoadError, match="not today"):
            model.restart()  # type: ignore[attr-defined]
        with pytest.raises(WorkerDied):
            model(np.array(1))
        path.write_text("def factory():\n    return lambda x: x + 10\n")
        model.restart()  # type: ignore[attr-defined]
        assert model(np.array(1)) == 11


def test_a_worker_that_is_stopped_is_slow_and_not_dead() -> None:
    with opexec.load(source("echo"), restart=False) as model:
        os.kill(model.workers[0].pid, signal.SIGSTOP)
        future = model.submit({"x": np.ones(3)})
        with pytest.raises(opexec.CallTimeout):
            model.infer({"x": np.ones(1)}, timeout=0.05)
        assert model.workers[0].state == "busy" and not future.done()
        os.kill(model.workers[0].pid, signal.SIGCONT)
        assert future.result(PATIENCE)["x"].tolist() == [1, 1, 1]


def test_a_worker_that_is_stopped_can_be_closed() -> None:
    model = opexec.load(source("echo"))
    pid = model.workers[0].pid
    os.kill(pid, signal.SIGSTOP)
    future = model.submit({"x": np.ones(3)})
    model.close()
    with pytest.raises(ModelClosed):
        future.result(PATIENCE)
    wait_until_dead(pid)


def test_a_model_that_closes_its_descriptors_ends_as_a_dead_worker() -> None:
    with opexec.load(source("closing_descriptors"), restart=False) as model:
        with pytest.raises((WorkerDied, opexec.ProtocolError)):
            model.infer({"x": np.ones(1)})
            model.infer({"x": np.ones(1)})  # the first may still be answered
        model.restart()  # type: ignore[attr-defined]


def test_a_worker_whose_death_is_taken_by_another_wait(tmp_path: Path) -> None:
    """A caller that reaps every child, or ignores SIGCHLD, learns of the death all the same."""
    script = f"""
import os, signal, sys, numpy as np, opexec
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
model = opexec.load({source("mortal")!r}, restart=False)
try:
    model(np.array("SIGKILL"))
except opexec.WorkerDied as error:
    print("died", error.stage)
model.restart()
print(model(np.array("fine")))
model.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["died call", "fine"], done


def test_many_deaths_leave_no_descriptors() -> None:
    with opexec.load(source("mortal"), restart=False) as model:

        def once() -> int:
            with pytest.raises(WorkerDied):
                model(np.array("SIGKILL"))
            model.restart()  # type: ignore[attr-defined]
            assert str(model(np.array("fine"))) == "fine"
            gc.collect()
            return len(os.listdir("/proc/self/fd"))

        before = min(once() for _ in range(2))
        used = model.stats().shared_memory
        for _ in range(5):
            once()
        # A thread of its own sees to what the last dead one left.
        while len(os.listdir("/proc/self/fd")) > before or model.stats().shared_memory != used:
            time.sleep(0.001)
