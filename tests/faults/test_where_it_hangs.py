"""A worker that hangs and is killed for it: the error says where it hung."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import LoadError, WorkerDied
from opexec.processes import stack
from opexec.processes.worker import WorkerProcess
from tests.models import Gate

MODELS = Path(__file__).with_name("hanging_models.py")
PATIENCE = 60.0

#: Where a model hangs, by how: None where it cannot tell.
STANDS = {
    "python": "in hang_in_python",
    "c": "in hang_in_c",
    "own handler": None,
    "deep": "in hang_deep_down",
}


@pytest.fixture
def late(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to load has passed once the model hangs."""
    received = WorkerProcess.receive

    def receive(process: WorkerProcess, deadline: float | None = None) -> Any:
        if process.hello:
            gate.wait()
            deadline = time.monotonic()
        return received(process, deadline)

    monkeypatch.setattr(WorkerProcess, "receive", receive)


def check(error: str, how: str) -> None:
    words, _, stood = error.partition("Where it stood")
    assert "was killed by SIGKILL" in words and words.rstrip().endswith("last words")
    stands = STANDS[how]
    if stands is None:
        assert not stood
    else:
        frames = [line for line in stood.splitlines() if line.startswith('    File "')]
        assert 1 < len(frames) <= 40 and any(stands in one for one in frames[:4])


@pytest.mark.parametrize("how", STANDS)
def test_while_loading(how: str, late: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEXEC_TEST_WAY", how)
    with pytest.raises(LoadError, match="load_timeout=1000") as caught:
        opexec.load(f"{MODELS}:loading", load_timeout=1000)
    check(str(caught.value), how)


@pytest.mark.parametrize("how", STANDS)
def test_in_a_call(how: str, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, arrived = stack.ask, []

    def asked(*arguments: Any) -> Any:
        if not arrived:  # it is asked again if it had not begun the call the first time
            gate.wait()
            arrived.append(True)
        return ask(*arguments)

    monkeypatch.setattr(stack, "ask", asked)
    with opexec.load(f"{MODELS}:calling", grace=0.01, restart=False) as model:
        with pytest.raises(opexec.CallTimeout):
            model.infer({"how": np.array(how)}, timeout=0.01)
        end = time.monotonic() + PATIENCE
        while model.workers[0].state != "stopped":
            assert time.monotonic() < end
            time.sleep(0.001)
        with pytest.raises(WorkerDied, match="ran past its deadline") as caught:
            model.infer({"how": np.array("none")})
        check(str(caught.value), how)
        if STANDS[how]:
            assert any(str(STANDS[how]) in line for line in caught.value.stderr)


def test_one_that_answers_while_it_is_asked_is_not_killed(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.loaded import source

    with opexec.load(source("gated"), grace=0.01) as model:
        (link,) = model.replicas.serving()  # type: ignore[attr-defined]
        connection, asked = link.connection, []

        def ask(*arguments: Any) -> tuple[str, ...]:
            asked.append(arguments)
            gate.let()
            consumer = connection.channel.consumer
            while consumer.words[consumer.tail_at] == consumer.head:
                time.sleep(0.001)
            connection.catch_up()
            return ()

        monkeypatch.setattr(stack, "ask", ask)
        pid = model.workers[0].pid
        with pytest.raises(opexec.CallTimeout):
            model.infer({"x": np.array([-1.0])}, timeout=0.01)
        assert model.infer({"x": np.array([1.0])}, timeout=PATIENCE)["y"] == 10
        assert asked and (model.workers[0].pid, model.workers[0].restarts) == (pid, 0)


def test_a_strangers_sigabrt_ends_it_as_ever() -> None:
    with opexec.load(f"{MODELS}:calling", restart=False) as model:
        assert str(model(np.array("x"))) == "x"
        os.kill(model.workers[0].pid or 0, signal.SIGABRT)
        with pytest.raises(WorkerDied, match="was killed by SIGABRT") as caught:
            model.infer({"how": np.array("none")}, timeout=PATIENCE)
        assert caught.value.signal == "SIGABRT" and "Where it stood" not in str(caught.value)
        assert "Fatal Python error: Aborted" in caught.value.stderr


def test_who_asks_a_worker_that_does_not_hang_disturbs_nobody() -> None:
    with opexec.load(f"{MODELS}:calling") as model:
        pid = model.workers[0].pid or 0
        for _ in range(5):
            os.kill(pid, stack.SIGNAL)
            assert str(model(np.array("x"))) == "x"
        assert model.workers[0].pid == pid and model.workers[0].restarts == 0


@pytest.mark.parametrize("state", ["stopped", "ended"])
def test_one_that_cannot_answer_is_not_waited_for(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_ANSWER_S", PATIENCE)
    worker = WorkerProcess.start(os.sys.executable, "m")  # type: ignore[attr-defined]
    try:
        os.kill(worker.pid, signal.SIGSTOP if state == "stopped" else signal.SIGKILL)
        flag = os.WSTOPPED if state == "stopped" else os.WEXITED
        os.waitid(os.P_PIDFD, worker.pidfd, flag | os.WNOWAIT)
        began = time.monotonic()
        worker.ask_where()
        assert time.monotonic() < began + PATIENCE
    finally:
        worker.close(grace=0)
