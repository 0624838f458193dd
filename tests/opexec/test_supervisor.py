"""A supervisor loads its models side by side, tells how far they are, and closes them together."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opexec import BuildError, LoadError, ModelClosed, OpexecError, Supervisor, WorkerDied
from opexec.connection import Connection
from tests.loaded import source
from tests.models import Gate
from tests.worker_processes import workers


def quiet(name: str, step: str) -> None:
    """Shows no progress."""


def test_load_is_opexecs() -> None:
    with Supervisor() as supervisor:
        double = supervisor.load(source("double"), inputs=[{"name": "x", "dtype": "float32", "shape": ["n"]}])
        late = supervisor.load(source("echo"), wait_ready=False, name="late")
        here = supervisor.load(source("echo"), isolation="none", name="here")
        assert double.ready and double.infer({"x": [1, 2]})["y"].tolist() == [2, 4]
        assert dict(supervisor.models) == {"models:double": double, "late": late, "here": here}
        assert here(np.ones(1)) == late(np.ones(1)) == 1
        with pytest.raises(ValueError, match="has a model 'late' already; give another name by name="):
            supervisor.load(source("echo"), name="late")
        with pytest.raises(LoadError, match="the weights are gone"):
            supervisor.load(source("raising_factory"))
        with pytest.raises(LoadError, match="the weights are gone"):
            supervisor.load(source("raising_factory"))  # its name is free again
        with pytest.raises(TypeError):
            supervisor.models["late"] = double  # type: ignore[index]
    for model in (double, late, here):
        with pytest.raises(ModelClosed):
            model(np.ones(1))
    assert not workers()
    with pytest.raises(OpexecError, match="the supervisor is closed"):
        supervisor.load(source("echo"))
    supervisor.close()


def test_load_all_gives_models_by_name() -> None:
    steps: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    with Supervisor() as supervisor:
        models = supervisor.load_all(
            {
                "a": source("echo"),
                "b": {"source": source("double"), "threads": 1},
                "c": {"source": source("echo"), "isolation": "none"},
            },
            progress=lambda name, step: steps[name].append(step),
        )
        assert list(models) == ["a", "b", "c"] and models == dict(supervisor.models)
        assert [model.name for model in models.values()] == ["a", "b", "c"]
        assert all(model.ready for model in models.values())
        assert models["b"](np.ones(2))["y"].tolist() == [2, 2]
        assert [step.partition(" ")[0] for step in steps["b"]] == ["starting", "loading", "ready:"]
        assert steps["b"][-1].startswith("ready: python ")


def test_all_processes_start_and_no_more_load_at_once_than_allowed(gate: Gate) -> None:
    """Each stops at the gate while it loads: as many get there as may load at once, though all have started."""
    names = [f"m{number}" for number in range(5)]
    started, loading = threading.Semaphore(0), []

    def progress(name: str, step: str) -> None:
        if step.startswith("starting"):
            started.release()
        elif step == "loading":
            loading.append(name)

    with Supervisor(at_once=2) as supervisor:
        thread = threading.Thread(
            target=supervisor.load_all,
            args=({name: source("gated_while_loading") for name in names},),
            kwargs={"progress": progress},
        )
        thread.start()
        for _ in names:
            started.acquire()
        for done in range(len(names)):
            gate.wait(2 if done == 0 else 1 if done < 4 else 0)
            assert len(loading) == min(done + 2, 5)
            gate.let()
            if done < 3:
                continue
        thread.join()
        assert sorted(loading) == names and all(model.ready for model in supervisor.models.values())


def test_waiting_for_its_turn_takes_nothing_of_the_load_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[float] = []
    deadlines: list[float] = []
    opened = Connection.open

    def open(self: Connection, load: dict[str, Any], deadline: float | None) -> dict[str, Any]:
        assert deadline is not None
        deadlines.append(deadline)
        return opened(self, load, deadline)

    def progress(name: str, step: str) -> None:
        if step == "loading":
            turns.append(time.monotonic())

    monkeypatch.setattr(Connection, "open", open)
    with Supervisor(at_once=1) as supervisor:
        wanted = {name: {"source": source("echo"), "load_timeout": 1000} for name in ("a", "b")}
        supervisor.load_all(wanted, progress=progress)
    assert len(turns) == 2
    assert all(at + 1000 <= deadline for at, deadline in zip(turns, deadlines, strict=True))


def test_every_failure_is_named_and_the_others_are_closed() -> None:
    with Supervisor() as supervisor:
        kept = supervisor.load(source("echo"), name="kept")
        with pytest.raises(LoadError) as caught:
            supervisor.load_all(
                {
                    "good": source("echo"),
                    "bad": source("raising_factory"),
                    "dead": source("SIGKILL_while_loading"),
                    "lost": {"source": source("echo"), "env": "/nonexistent/python"},
                },
                progress=quiet,
            )
        error = caught.value
        assert error.stage == "several"
        assert {name: type(one) for name, one in error.failures.items()} == {
            "bad": LoadError,
            "dead": WorkerDied,
            "lost": BuildError,
        }
        message = str(error)
        assert message.startswith("3 of 4 models could not be loaded, and the others were closed:")
        for words in ("'bad': LoadError", "the weights are gone", "'dead': WorkerDied", "'lost': BuildError"):
            assert words in message
        assert dict(supervisor.models) == {"kept": kept} and len(workers()) == 1
        assert kept(np.ones(1)) == 1
        supervisor.load_all({"bad": source("echo")}, progress=quiet)


@pytest.mark.parametrize(
    ("wanted", "kind", "words"),
    [
        ({"a": {"source": source("echo"), "nonsense": 1}}, TypeError, "nonsense"),
        ({"a": {"source": source("echo"), "threads": 0}}, ValueError, "threads is 0"),
        ({"a": {"env": None}}, TypeError, "model 'a' has no 'source' among its arguments: 'env'"),
        ({"a": "gone.py:f"}, LoadError, "there is no file"),
        ({5: source("echo")}, TypeError, "a model is called 5"),
        ({"a": {"source": source("echo"), "wait_ready": False}}, TypeError, "wait_ready is no argument here"),
        (
            {"a": {"source": source("echo"), "name": "x"}, "b": {"source": source("echo"), "name": "x"}},
            ValueError,
            "two of the models are called 'x'",
        ),
    ],
    ids=str,
)
def test_wrong_arguments_start_nothing(
    wanted: Any, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr("opexec.supervisor.open_model", lambda *arguments: opened.append(arguments))
    with Supervisor() as supervisor:
        with pytest.raises(kind, match=words):
            supervisor.load_all({**wanted}, progress=quiet)
        assert not supervisor.models and not opened
    for at_once in (0, -1, "2"):
        with pytest.raises(ValueError, match="at_once is"):
            Supervisor(at_once=at_once)  # type: ignore[arg-type]


def test_ctrl_c_ends_them_all(gate: Gate) -> None:
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)

    def interrupt() -> None:
        gate.wait()
        signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with Supervisor() as supervisor:
            with pytest.raises(KeyboardInterrupt):
                supervisor.load_all({"a": source("gated_while_loading"), "b": source("echo")}, progress=quiet)
            assert not supervisor.models
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    for loader in threading.enumerate():
        if loader.name.startswith("opexec-loading"):
            loader.join()
    assert not workers()


def test_close_from_elsewhere_ends_what_is_loading(gate: Gate) -> None:
    supervisor = Supervisor()
    closer = threading.Thread(target=lambda: (gate.wait(), supervisor.close()))
    closer.start()
    with pytest.raises(LoadError, match="ModelClosed"):
        supervisor.load_all({"a": source("gated_while_loading"), "b": source("echo")}, progress=quiet)
    closer.join()


PROGRAM = """
import sys
from opexec import Supervisor
with Supervisor() as supervisor:
    supervisor.load_all({{"first": {0!r}, "second": {0!r}}})
    print("done")
"""


def test_progress_without_a_terminal_is_a_line_a_step() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(source("echo"))], capture_output=True, text=True
    )
    assert ended.returncode == 0 and ended.stdout == "done\n"
    lines = ended.stderr.splitlines()
    for name in ("first", "second"):
        assert f"opexec: {name}: loading" in lines, lines
        assert any(line.startswith(f"opexec: {name}: ready: python ") for line in lines)


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(source("echo"))],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=environment,
    ) as program:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # the terminal's other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    assert program.returncode == 0
    for name in (b"first", b"second"):
        assert b"opexec: " + name + b": ready: python" in shown
