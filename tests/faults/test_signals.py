"""Ctrl-C: one traceback at most, and the model's own process group hears nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import opexec
from tests.loaded import in_thread, source
from tests.models import Gate

REPOSITORY = str(Path(__file__).parents[2])

HEAD = """
import asyncio, sys, threading, numpy as np, opexec
stays, good = {"x": np.array([-1.0])}, {"x": np.array([7.0])}
"""

#: What a program is doing when Ctrl-C comes; the model, or its loading, is at the gate.
DOING = {
    "infer": "model = opexec.load(sys.argv[1])\nmodel.infer(stays)",
    "infer_async": "model = opexec.load(sys.argv[1])\nasyncio.run(model.infer_async(stays))",
    "with threads": """
model = opexec.load(sys.argv[1])
for _ in range(3):
    threading.Thread(target=model.infer, args=(stays,), daemon=True).start()
model.infer(stays)
""",
    "load": "model = opexec.load(sys.argv[2])",
    "load_all": """
with opexec.Supervisor(at_once=2) as supervisor:
    supervisor.load_all({"one": sys.argv[2], "two": sys.argv[2]}, progress=lambda name, step: None)
""",
    "drain": """
model = opexec.load(sys.argv[1])
model.submit(stays)
model.close(drain=True)
""",
}


@pytest.mark.parametrize("doing", DOING)
def test_ctrl_c_ends_a_program_with_one_traceback(doing: str, gate: Gate) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", HEAD + DOING[doing], source("gated"), source("gated_while_loading")],
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
        # SIGINT is ignored in what a shell has started in the background, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with program:
        watchdog = threading.Timer(90, program.kill)
        watchdog.start()
        gate.wait(2 if doing == "load_all" else 1)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
        assert program.stderr is not None
        said = program.stderr.read()
        watchdog.cancel()
    assert program.returncode == -signal.SIGINT, said
    # What the log says of a model that was not loaded is no traceback, and is one line.
    ends = [line for line in said.splitlines() if line and not line.startswith((" ", "Traceback", "model "))]
    assert sum(line.startswith("model ") for line in said.splitlines()) <= 2
    assert "KeyboardInterrupt" in ends
    assert said.count("Traceback") == 1 or doing == "infer_async", said
    assert "Exception ignored" not in said and "Exception in thread" not in said, said
    assert set(ends) <= {
        "KeyboardInterrupt",
        "During handling of the above exception, another exception occurred:",
        "asyncio.exceptions.CancelledError",  # asyncio's own account of how its task ended
    }, said


def test_a_closed_model_after_ctrl_c_in_close(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted `close` can be called again, and then ends the worker."""
    model = opexec.load(source("gated"))
    future = model.submit({"x": np.array([-1.0])})
    gate.wait()
    pid = model.workers[0].pid
    assert pid is not None
    pidfd = os.pidfd_open(pid)
    waiting = threading.Event()

    def interrupt() -> None:
        waiting.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    killer = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        waiting.set()
        model.close(drain=True)
    killer.result(60)
    model.close()
    with pytest.raises(opexec.ModelClosed):
        future.result(60)
    import select

    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)
