"""`opexec top`: the real command, looking at a program that shares a model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opexec.metrics.watching import Watcher, compared
from tests.command import REPOSITORY, on_terminal, opexec, opexec_here
from tests.loaded import source

OWNER = """
import sys, numpy as np, opexec
with opexec.load(sys.argv[1], name="scale") as model, model.share("scaler"):
    x = {"x": np.ones(1000)}
    for line in sys.stdin:
        for _ in range(int(line)):
            model.infer(x)
        print("done", flush=True)
"""

Calls = Callable[[int], None]


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[str], Calls]]:
    """Another program that shares a model as "scaler", and what has it make so many calls."""
    monkeypatch.setenv("OPEXEC_RUNTIME", str(tmp_path / "run"))
    monkeypatch.setattr("opexec.metrics.watching._PATIENCE_S", 60.0)  # on a busy machine it may take long
    program = subprocess.Popen(
        [sys.executable, "-c", OWNER, source("double")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert program.stdin is not None and program.stdout is not None
    stdin, stdout = program.stdin, program.stdout

    def calls(count: int) -> None:
        print(count, file=stdin, flush=True)
        assert stdout.readline() == "done\n"

    with program:
        try:
            calls(1)
            yield program, calls
        finally:
            program.kill()


def test_nothing_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEXEC_RUNTIME", str(tmp_path))
    done = opexec_here("top", "--once")
    assert (done.status, done.out) == (0, "")
    assert "no program of yours shares a model" in done.err


def test_it_shows_what_another_program_does(owner: tuple[subprocess.Popen[str], Calls]) -> None:
    program, calls = owner
    calls(200)
    (one,) = json.loads(opexec_here("top", "--json", "--interval", "0.1").out)
    seen = one["seen"]
    assert (one["name"], seen["model"], seen["owner"]) == ("scaler", "scale", program.pid)
    assert (seen["calls"], seen["in_flight"], seen["errors"]) == (201, 0, {})
    assert seen["bytes_copied_in"] == 201 * 8000
    assert one["calls_per_s"] == 0 and one["cpu_percent"] >= 0
    assert set(seen["latency"]["total"]) == {"count", "mean", "p50", "p90", "p99", "p999", "max"}
    (worker,) = seen["workers"]
    assert worker["state"] == "ready" and worker["memory"] > 1 << 20
    head, row = opexec("top", "--once", "--interval", "0.1").out.splitlines()
    assert head.split()[:5] == ["MODEL", "STATE", "CALLS/S", "P50", "P99"]
    assert row.split()[:3] == ["scaler", "ready", "0"]
    assert row.split()[-1] == str(program.pid)
    lines = on_terminal(80, "top", "--once", "--interval", "0.1")
    assert all(len(line) <= 80 for line in lines) and "scaler" in lines[-1]


def test_rates_are_between_two_looks(owner: tuple[subprocess.Popen[str], Calls]) -> None:
    program, calls = owner
    with Watcher() as watcher:
        (first,) = watcher.look()
        assert first.calls_per_s is None
        calls(50)
        (second,) = watcher.look()
        assert first.seen is not None and second.seen is not None and second.calls_per_s is not None
        seconds = second.seen["at"] - first.seen["at"]
        assert second.calls_per_s * seconds == pytest.approx(50)
        program.kill()
        program.wait()
        assert watcher.look() == [], "its owner is gone, though its socket is there"


def test_an_owner_that_does_not_answer_is_shown_as_such(
    owner: tuple[subprocess.Popen[str], Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, _ = owner
    with Watcher() as watcher:
        assert watcher.look()[0].seen is not None
        program.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            with monkeypatch.context() as impatient:
                impatient.setattr("opexec.metrics.watching._PATIENCE_S", 0.2)
                (one,) = watcher.look()
            assert one.seen is None and "did not answer in time" in one.error
        finally:
            program.send_signal(signal.SIGCONT)
        assert watcher.look()[0].seen is not None


def test_live_until_ctrl_c(owner: tuple[subprocess.Popen[str], Calls]) -> None:
    import pty

    controller, terminal = pty.openpty()
    top = subprocess.Popen(
        [sys.executable, "-m", "opexec", "top", "--interval", "0.1"],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(terminal)
    shown = b""
    watchdog = threading.Timer(60, top.kill)
    watchdog.start()
    while b"scaler" not in shown:
        shown += os.read(controller, 65536)
    top.send_signal(signal.SIGINT)
    try:
        while part := os.read(controller, 65536):
            shown += part
    except OSError:  # EIO: the other side has closed it
        pass
    watchdog.cancel()
    os.close(controller)
    assert top.wait(60) == 0
    assert b"Traceback" not in shown


def snapshot(**changed: Any) -> dict[str, Any]:
    worker = {"pid": 7, "cpu_seconds": 10.0}
    return {"at": 100.0, "owner": 1, "calls": 5, "errors": {}, "workers": [worker], **changed}


def test_a_new_owner_or_worker_does_not_count_backwards() -> None:
    before = snapshot()
    assert compared("m", before, snapshot(at=101.0, owner=2, calls=1)).calls_per_s is None
    assert compared("m", None, snapshot()).cpu_percent is None
    replaced = snapshot(at=102.0, calls=9, client_calls=4, workers=[{"pid": 8, "cpu_seconds": 1.0}])
    found = compared("m", before, replaced)
    assert (found.calls_per_s, found.errors_per_s, found.cpu_percent) == (4.0, 0.0, 50.0)
    gone = snapshot(at=102.0, calls=0, workers=[{"pid": None, "cpu_seconds": None}])
    assert compared("m", before, gone).calls_per_s == 0
    assert np.isfinite(compared("m", before, gone).cpu_percent)
