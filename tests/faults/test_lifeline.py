"""A worker never outlives its caller, whatever ended the caller and whatever the worker is doing; its children go too."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opexec import BuildError, Environment
from opexec.environments.interpreter_search import find
from opexec.processes.lifeline import Lifeline
from tests.absent import absent

# What a model does while it is being loaded: it starts children, says which processes there are, and goes on as BUSY says.
MODEL = """
import ctypes, os, re, signal, subprocess, time

def factory():
    forked = os.fork()
    if forked == 0:
        while True:
            signal.pause()
    children = [subprocess.Popen(["sleep", "1000"]).pid for _ in range(2)]
    with open({fifo!r}, "w") as fifo:
        fifo.write(" ".join(map(str, [os.getpid(), forked] + children)))
    {busy}
    return lambda: 1
"""

BUSY = {
    "serving calls": "pass",
    "in Python": "while True: pass",
    "in a C call that holds the GIL": "ctypes.PyDLL(None).sleep(1000)",
    "in a regular expression without end": "re.match('(a+)+$', 'a' * 60 + 'b')",
}

CALLER = """
import os, signal, sys, threading, time
import opexec

source, python = sys.argv[1:]
ready = threading.Event()

def load():
    global model
    model = opexec.load(source, env=python)

# From a thread that ends, as soon as the model is there.
threading.Thread(target=load, daemon=True).start()
sys.stdin.readline()
{then}
"""


def interpreter(version: str) -> str:
    """Path of an interpreter of that version with numpy; CI must have it."""
    if version == "caller's":
        return sys.executable
    try:
        return str(Environment(str(find(version).path), ["numpy"]).resolve())
    except BuildError as error:
        absent(f"Python {version} with numpy: {error}")


class Scene:
    """A caller process with a worker that runs MODEL."""

    def __init__(self, folder: Path, then: str, busy: str, python: str) -> None:
        fifo = folder / "fifo"
        os.mkfifo(fifo)
        (folder / "model.py").write_text(MODEL.format(fifo=str(fifo), busy=busy))
        self.caller = subprocess.Popen(
            [sys.executable, "-c", CALLER.format(then=then), f"{folder / 'model.py'}:factory", python],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        pids = [int(pid) for pid in fifo.read_text().split()]
        # In that order: the worker, a child it forked, two that run another program.
        self.pidfds = [os.pidfd_open(pid) for pid in pids]

    def go_on(self) -> None:
        """Let the caller do what `then` says."""
        assert self.caller.stdin is not None
        self.caller.stdin.write(b"\n")
        self.caller.stdin.flush()

    def wait_for_all(self) -> None:
        """All processes of the worker's group are dead."""
        self.wait_for(len(self.pidfds))

    def wait_for(self, count: int) -> None:
        """The first `count` of them are."""
        for pidfd in self.pidfds[:count]:
            assert select.select([pidfd], [], [], 60)[0], "a process of the worker's group lives on"

    def is_dead(self, index: int) -> bool:
        return bool(select.select([self.pidfds[index]], [], [], 0)[0])

    def close(self) -> None:
        self.caller.kill()
        self.caller.wait()
        assert self.caller.stdin is not None and self.caller.stdout is not None
        self.caller.stdin.close()
        self.caller.stdout.close()
        for pidfd in self.pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


@pytest.fixture()
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    made = []

    def make(then: str = "", busy: str = "pass", python: str = "caller's") -> Scene:
        made.append(Scene(tmp_path, then, busy, interpreter(python)))
        return made[-1]

    yield make
    for one in made:
        one.close()


PYTHONS = ["caller's", *(pytest.param(version, marks=pytest.mark.slow) for version in ("3.7", "3.13"))]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("busy", BUSY)
def test_a_killed_caller_takes_the_worker_and_its_children_along(scene, busy: str, python: str) -> None:
    one = scene(busy=BUSY[busy], python=python)
    one.caller.kill()
    one.wait_for_all()


@pytest.mark.parametrize(
    "then",
    ["sys.exit(3)", "os._exit(3)", "os.abort()", "os.execvp('sleep', ['sleep', '1000'])"],
)
def test_however_the_caller_ends_the_worker_and_its_children_go(scene, then: str) -> None:
    one = scene(then=then, busy=BUSY["in a C call that holds the GIL"])
    one.go_on()
    one.wait_for_all()


def test_children_of_a_worker_that_died_before_its_caller_go_too(scene) -> None:
    """Nothing of the worker takes part any more: neither a signal to it nor a descriptor it held."""
    one = scene()
    one.caller.send_signal(signal.SIGSTOP)  # so that it cannot clean up after the worker
    os.waitid(os.P_PID, one.caller.pid, os.WSTOPPED | os.WNOWAIT)  # all its threads have stopped
    signal.pidfd_send_signal(one.pidfds[0], signal.SIGKILL)
    assert select.select([one.pidfds[0]], [], [], 60)[0]
    assert not any(one.is_dead(child) for child in (1, 2, 3))
    one.caller.kill()
    one.wait_for_all()


@pytest.mark.parametrize(
    ("fork", "ended"),
    [
        ("os.fork()", 4),
        # Unseen by Python, its copy keeps the lifeline whole; the worker's own parent-death signal remains, for itself alone.
        ("ctypes.CDLL(None).fork()", 1),
    ],
)
def test_a_copy_of_the_caller_does_not_keep_the_worker_alive(scene, fork: str, ended: int) -> None:
    one = scene(then=f"import ctypes\ncopy = {fork}\nif copy: print(copy, flush=True)\nsignal.pause()")
    one.go_on()
    copy = os.pidfd_open(int(one.caller.stdout.readline()))
    try:
        one.caller.kill()
        one.wait_for(ended)
        assert not select.select([copy], [], [], 0)[0]
    finally:
        signal.pidfd_send_signal(copy, signal.SIGKILL)
        os.close(copy)
    one.wait_for_all()


@pytest.mark.parametrize("end", ["cut", "fork and cut"])
def test_cutting_a_lifeline_kills_exactly_its_group(end: str) -> None:
    children = [
        subprocess.Popen(
            ["sh", "-c", "sleep 1000 & echo; wait"], stdout=subprocess.PIPE, start_new_session=True
        )
        for _ in range(2)
    ]
    try:
        lifelines = [Lifeline(child.pid) for child in children]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()  # the grandchild runs
        if end == "fork and cut":
            copy = os.fork()
            if copy == 0:
                for lifeline in lifelines:
                    lifeline.cut()  # another process's: without effect
                os._exit(0)
            os.waitpid(copy, 0)
            assert [child.poll() for child in children] == [None, None]
        lifelines[0].cut()
        lifelines[0].cut()
        assert children[0].wait() == -signal.SIGKILL
        assert children[0].stdout is not None
        assert children[0].stdout.read() == b"", "the grandchild, which held the pipe too, is dead"
        assert children[1].poll() is None
        lifelines[1].cut()
        assert children[1].wait() == -signal.SIGKILL
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def test_a_worker_whose_parent_is_another_process_leaves_at_once(tmp_path: Path) -> None:
    import opexec.workers

    main = Path(opexec.workers.__file__).with_name("__main__.py")
    wrong = subprocess.run(
        [sys.executable, "-I", main, "--control", "0", "--parent", "1"], capture_output=True, text=True
    )
    assert wrong.returncode == 1
    assert f"was started for process 1 but its parent is process {os.getpid()}" in wrong.stderr
    assert "give the interpreter itself" in wrong.stderr


def test_no_lifeline_keeps_descriptors_after_it_is_cut(descriptors: Callable[[], set[str]]) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as child:
        before = descriptors()
        lifeline = Lifeline(child.pid)
        assert len(descriptors() - before) == 2
        lifeline.cut()
        assert descriptors() == before
