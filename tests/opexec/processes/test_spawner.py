"""The spawner: children come from one thread that never ends, and a fork, an error or Ctrl-C leaves it in order."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from opexec.processes.spawner import spawn

# Asks to be killed when its parent thread ends, says so, and waits for the end of its input.
DEPENDANT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
print("armed", flush=True)
sys.stdin.read()
"""


def test_a_child_outlives_the_thread_that_asked_for_it() -> None:
    made: list[subprocess.Popen[bytes]] = []

    def ask() -> None:
        child = spawn([sys.executable, "-I", "-c", DEPENDANT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"armed\n"
        made.append(child)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    while os.path.exists(
        f"/proc/self/task/{thread.native_id}"
    ):  # `join` returns a little before the thread is gone
        pass
    (child,) = made
    with child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait() == 0


def test_what_popen_raises_is_raised_here() -> None:
    with pytest.raises(FileNotFoundError) as info:
        spawn(["/nonexistent/program"])
    assert info.value.filename == "/nonexistent/program"
    with spawn(["true"]) as child:
        assert child.wait() == 0


def test_a_forked_child_has_a_spawner_of_its_own() -> None:
    with spawn(["true"]) as child:
        assert child.wait() == 0
    pid = os.fork()
    if pid == 0:
        try:
            with spawn(["true"]) as grandchild:
                os._exit(grandchild.wait())
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_fork_waits_while_a_child_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Popen` waits until all copies of a pipe's end are closed; a process forked in that moment would keep one for as long as it lives."""
    inside, forking = threading.Event(), threading.Event()

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **kwargs: object) -> None:
            reader, writer = os.pipe()
            inside.set()
            assert forking.wait(60)
            select.select([], [], [], 0.05)  # a fork that does not wait happens now
            os.close(writer)
            self.ended = bool(select.select([reader], [], [], 5)[0])
            os.close(reader)
            super().__init__(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", Popen)
    made: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: made.append(spawn(["true"])))
    thread.start()
    assert inside.wait(60)
    forking.set()
    copy = os.fork()
    if copy == 0:
        while True:
            signal.pause()
    try:
        thread.join()
        with made[0] as child:
            assert child.wait() == 0
        assert child.ended, "the copy kept the pipe open"  # type: ignore[attr-defined]
    finally:
        os.kill(copy, signal.SIGKILL)
        os.waitpid(copy, 0)


def test_an_interrupted_spawn_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started, interrupted = threading.Event(), threading.Event()
    made: list[subprocess.Popen[bytes]] = []

    class Slow(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **kwargs: object) -> None:
            started.set()
            assert interrupted.wait(60)
            super().__init__(*args, **kwargs)  # type: ignore[call-overload]
            made.append(self)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        started.wait(60)
        signal.pthread_kill(main, signal.SIGUSR1)

    # Not SIGINT, which is ignored in processes that a shell started in the background.
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            spawn(["sleep", "1000"])
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
        interrupted.set()
    with spawn(["true"]) as child:  # the next request: the one before is over
        child.wait()
    assert made[0].returncode == -signal.SIGKILL, "killed and reaped"
