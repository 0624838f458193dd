"""Processes that attach to a shared model and do what a test tells them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_PROGRAM = """
import os, pickle, sys, threading
import numpy as np
import opexec
told, said = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
names = {"np": np, "opexec": opexec, "os": os, "threading": threading}
names["names"] = names
while True:
    try:
        code = pickle.load(told)
    except EOFError:
        break
    try:
        try:
            answer = eval(code, names)
        except SyntaxError:
            exec(code, names)
            answer = None
    except BaseException as error:
        answer = error
    pickle.dump(answer, said)
    said.flush()
"""

_FORGET = """
for name, value in list(names.items()):
    if isinstance(value, opexec.Model):
        value.close()
for name in set(names) - {"np", "opexec", "os", "threading", "names"}:
    del names[name]
"""


class Client:
    """A process that runs Python as it is told. What it answers is pickled: it is the test's own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self.process.pid
        #: It is not at anything.
        self.idle = True

    def begin(self, code: str) -> None:
        """Have an expression or statements run; `end` must follow."""
        assert self.process.stdin is not None
        self.idle = False
        pickle.dump(code, self.process.stdin)
        self.process.stdin.flush()

    def end(self) -> Any:
        """What came of it: its value, or the exception, which is raised."""
        assert self.process.stdout is not None
        answer = pickle.load(self.process.stdout)
        self.idle = True
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def run(self, code: str) -> Any:
        self.begin(code)
        return self.end()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which this test's sockets lie."""
    folder = tmp_path / "runtime"
    monkeypatch.setenv("OPEXEC_RUNTIME", str(folder))
    return folder


#: Processes of former tests, which begin anew: starting one takes longer than most tests.
_idle: list[Client] = []


@pytest.fixture
def client(runtime: Path) -> Iterator[Callable[[], Client]]:
    """Makes client processes."""
    made: list[Client] = []

    def make() -> Client:
        one = _idle.pop() if _idle else Client()
        made.append(one)
        one.run(f"os.environ['OPEXEC_RUNTIME'] = {str(runtime)!r}")
        return one

    yield make
    for one in made:
        if one.process.poll() is None and one.idle:
            one.run(_FORGET)
            _idle.append(one)
        else:
            one.close()


@pytest.fixture(scope="module", autouse=True)
def no_idle_clients() -> Iterator[None]:
    """None is left at the end."""
    yield
    while _idle:
        _idle.pop().close()
