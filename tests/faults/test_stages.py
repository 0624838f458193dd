"""Every fault at every stage of a worker's life: the caller has a right answer or a typed error, the model works again, and nothing stays behind."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import opexec
from opexec import CallTimeout, LoadError, Model, ModelError, RestartPolicy, WorkerDied
from opexec.processes.worker import WorkerProcess
from tests.faults.test_many_loads import held
from tests.loaded import in_thread

MODEL = f"{Path(__file__).with_name('staged_models.py')}:staged"
X = np.arange(5.0)

RIGHT = "a right answer"

#: What comes of a call, by the fault's kind and the stage. An exception that nobody catches ends the worker, with exit code 1.
DEADLY = {
    "before reading": RIGHT,  # by the next worker: this one had not begun it
    "in the model": WorkerDied,
    "writing": WorkerDied,
    "before ringing": RIGHT,  # it lies in shared memory, and the kernel tells of the death
    "after answering": RIGHT,
}
RAISED = {
    "before reading": RIGHT,
    "in the model": ModelError,
    "writing": ModelError,
    "after answering": RIGHT,
}
STOPPED = {
    "before reading": CallTimeout,
    "in the model": CallTimeout,
    "writing": CallTimeout,
    "before ringing": RIGHT,  # a reader looks again now and then
    "after answering": RIGHT,
}
OUTCOMES = {
    "SIGKILL": DEADLY,
    "SIGSEGV": DEADLY,
    "exit": DEADLY,
    "SIGSTOP": STOPPED,
    "exception": RAISED,
    "memory": RAISED,
}
ENDED = {"SIGKILL": (None, "SIGKILL"), "SIGSEGV": (None, "SIGSEGV"), "exit": (3, None)}


def by_infer(model: Model, inputs: dict[str, Any], timeout: float) -> Any:
    return model.infer(inputs, timeout=timeout)


def by_submit(model: Model, inputs: dict[str, Any], timeout: float) -> Any:
    return model.submit(inputs, timeout=timeout).result(60)


def by_infer_async(model: Model, inputs: dict[str, Any], timeout: float) -> Any:
    return asyncio.run(model.infer_async(inputs, timeout=timeout))


WAYS = {"infer": by_infer, "submit": by_submit, "infer_async": by_infer_async}


@pytest.fixture
def fault_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What it holds happens to the next worker that loads its model."""
    monkeypatch.setenv("OPEXEC_TEST_FAULT", str(tmp_path / "fault"))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # each takes 30 MB of a memory limit
    return tmp_path / "fault"


def load(**options: Any) -> Model:
    return opexec.load(
        MODEL,
        **{
            "restart": RestartPolicy(max_restarts=1000, backoff=0.001, max_backoff=0.001),
            "grace": 0.05,
            "memory_limit": "600MiB",
            **options,
        },
    )


def ask(model: Model, way: str, arm: str = "", timeout: float = 60.0) -> None:
    """A call whose answer is right."""
    answer = WAYS[way](model, {"x": X, "arm": np.array(arm)}, timeout)
    np.testing.assert_array_equal(answer["y"], X * 2)


def possessions() -> dict[str, Any]:
    found = held()
    found["descriptors"] = Counter(name for name in found["descriptors"] if "opexec" not in name)
    found["threads"] = Counter(re.sub(r"\d+", "N", name) for name in found["threads"])
    return {what: found[what] for what in ("descriptors", "threads", "in /dev/shm")} | {
        "processes": len(found["processes"]),
        "segments": len(found["segments"]),
    }


def quiet(model: Model) -> dict[str, Any]:
    """What this process holds once the model has its worker, and whoever saw to the end of the last one is done."""
    while model.workers[0].state != "ready" or any(
        "restarting" in thread.name for thread in threading.enumerate()
    ):
        time.sleep(0.001)
    return possessions()


@pytest.mark.parametrize(
    ("fault", "way"),
    [
        *((fault, "infer") for fault in OUTCOMES),
        ("SIGKILL", "submit"),
        ("SIGKILL", "infer_async"),
        ("SIGSTOP", "submit"),
    ],
)
def test_a_fault_at_each_stage_of_a_call(fault_file: Path, fault: str, way: str) -> None:
    with load() as model:
        for stage in OUTCOMES[fault]:  # each once before, so that what is kept per call is there
            ask(model, way, f"nothing {stage}")
        if fault in ENDED:  # so is what is kept per death
            pid = model.workers[0].pid
            os.kill(pid, signal.SIGKILL)
            while model.workers[0].pid == pid:
                time.sleep(0.001)
        before = quiet(model)
        for stage, outcome in OUTCOMES[fault].items():
            pid = model.workers[0].pid
            ask(model, way, f"{fault} while {stage}")
            if way == "submit" and stage == "before reading" and fault != "SIGSTOP":
                outcome = WorkerDied  # its inputs are the caller's again: no other worker can be given them
            # A deadline that is met only where nothing else would end the call.
            timeout = 0.2 if outcome is CallTimeout else 60.0
            if outcome is RIGHT:
                ask(model, way, timeout=timeout)
            else:
                with pytest.raises(outcome) as caught:  # type: ignore[call-overload]
                    ask(model, way, timeout=timeout)
                assert_says_what_happened(caught.value, fault, stage, pid)
                del caught  # its traceback has the worker's end of the call
            same = fault in ("exception", "memory") and stage in ("in the model", "writing")
            if fault == "SIGSTOP" and outcome is RIGHT:  # nobody has missed it yet
                with pytest.raises(CallTimeout):
                    ask(model, way, timeout=0.2)
            if fault == "SIGSTOP" or (way == "submit" and not same):
                # What is sent to a worker that stands still goes under with it, and so does what is submitted to one that has just died.
                while model.workers[0].pid == pid:
                    time.sleep(0.001)
            ask(model, way)
            assert (model.workers[0].pid == pid) == same, stage
        assert quiet(model) == before


def after_one_model() -> dict[str, Any]:
    """What this process holds after a model that was loaded, called and closed."""
    with load() as model:
        ask(model, "infer")
    del model
    return possessions()


def assert_says_what_happened(error: BaseException, fault: str, stage: str, pid: int | None) -> None:
    if isinstance(error, WorkerDied):
        assert (error.exit_code, error.signal, error.pid) == (*ENDED[fault], pid)
        assert error.stage == ("idle" if stage == "before reading" else "call")
    if isinstance(error, ModelError):
        assert ("Mishap" if fault == "exception" else "MemoryError") in error.type


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSEGV", "exit", "exception", "memory"])
def test_a_fault_while_loading(fault_file: Path, fault: str) -> None:
    before = after_one_model()
    fault_file.write_text(fault)
    with pytest.raises((WorkerDied, LoadError)) as caught:
        load()
    assert (
        isinstance(caught.value, WorkerDied if fault in ENDED else LoadError) and caught.value.stage == "load"
    )
    if isinstance(caught.value, WorkerDied):
        assert (caught.value.exit_code, caught.value.signal) == ENDED[fault]
    del caught
    assert possessions() == before
    with load() as model:
        # Of a replacement: the one after it serves.
        fault_file.write_text(fault)
        os.kill(model.workers[0].pid, signal.SIGKILL)
        ask(model, "infer_async")
        assert not fault_file.exists() and model.workers[0].restarts == 1
    del model
    assert possessions() == before


def test_stopped_while_loading(fault_file: Path) -> None:
    """Nobody gave it a deadline; calls have theirs, and closing ends it."""
    before = after_one_model()
    fault_file.write_text("SIGSTOP")
    model = load(wait_ready=False)
    with pytest.raises(CallTimeout):
        model.infer({"x": X, "arm": np.array("")}, timeout=0.3)
    model.close()
    del model
    while psutil.Process().children():  # the thread that loads it clears away
        time.sleep(0.001)
    assert_soon(possessions, before)


def test_stopped_while_loading_it_has_the_load_timeout(
    fault_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received, armed = WorkerProcess.receive, threading.Event()

    def receive(process: WorkerProcess, deadline: float | None = None) -> Any:
        if process.hello and armed.is_set():
            wait_until_stopped(process)
            armed.clear()
            assert deadline is not None and deadline > time.monotonic()
            deadline = time.monotonic()  # it has passed by now
        return received(process, deadline)

    def stop_the_next() -> None:
        fault_file.write_text("SIGSTOP")
        armed.set()

    monkeypatch.setattr(WorkerProcess, "receive", receive)
    late = "was killed by SIGKILL while loading its model: it took longer than load_timeout=1000 s"
    before = after_one_model()
    stop_the_next()
    with pytest.raises(LoadError, match=late) as caught:
        load(load_timeout=1000)
    assert caught.value.stage == "load"
    del caught
    assert possessions() == before
    with load(load_timeout=1000) as model:
        # Of a replacement: it is a crash, and the one after it serves.
        stop_the_next()
        os.kill(model.workers[0].pid, signal.SIGKILL)
        in_thread(functools.partial(ask_without_end, model)).result(60)
        assert not armed.is_set() and model.workers[0].restarts == 1
        assert late in model.workers[0].reason
        stop_the_next()
        with pytest.raises(LoadError, match=late):
            in_thread(model.restart).result(60)
        model.restart()
        ask_without_end(model)
    del model
    assert_soon(possessions, before)


def wait_until_stopped(process: WorkerProcess) -> None:
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)


def ask_without_end(model: Model) -> None:
    """A call that nobody gave a timeout."""
    np.testing.assert_array_equal(model.infer({"x": X, "arm": np.array("")})["y"], X * 2)


def assert_soon(look: Callable[[], Any], expected: Any) -> None:
    end = time.monotonic() + 60
    while look() != expected and time.monotonic() < end:
        time.sleep(0.01)
    assert look() == expected


BEFORE_THE_HANDSHAKE = {
    "SIGKILL": ("kill -KILL $$", WorkerDied, "spawn"),
    "SIGSEGV": ("kill -SEGV $$", WorkerDied, "spawn"),
    "exit": ("exit 3", LoadError, "spawn"),
    "SIGSTOP": ("kill -STOP $$", LoadError, "handshake"),
    "garbage": (
        f'exec {sys.executable} -c "import os, signal; os.write($5, bytes([255]) * 9000); signal.pause()"',
        LoadError,
        "handshake",
    ),
}


@pytest.mark.parametrize("fault", BEFORE_THE_HANDSHAKE)
def test_a_fault_before_the_handshake(
    fault_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The interpreter is a script, which meets the fault if a file is there, and else becomes the interpreter."""
    command, kind, stage = BEFORE_THE_HANDSHAKE[fault]
    script, marker = tmp_path / "python", tmp_path / "marker"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *--control*) if [ -e {marker} ]; then rm {marker}; {command}; fi;; esac\nexec {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    with load(env=str(script), memory_limit=None) as model:
        ask(model, "infer")
    del model
    before = possessions()
    if fault == "SIGSTOP":
        received = WorkerProcess.receive

        def receive(process: WorkerProcess, deadline: float | None = None) -> Any:
            wait_until_stopped(process)
            return received(process, time.monotonic())  # the time for the handshake has passed by now

        monkeypatch.setattr(WorkerProcess, "receive", receive)
    marker.touch()
    with pytest.raises(kind) as caught:
        load(env=str(script), memory_limit=None)
    assert caught.value.stage == stage and not marker.exists()
    del caught
    assert possessions() == before
    monkeypatch.undo()
    monkeypatch.setenv("OPEXEC_TEST_FAULT", str(fault_file))
    with load(env=str(script), memory_limit=None) as model:
        ask(model, "infer")
