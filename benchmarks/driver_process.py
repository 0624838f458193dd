"""One contender's process, as the run sees it: started, asked, and gone without a trace."""

from __future__ import annotations

import json
import multiprocessing.connection
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil

from benchmarks import peer_environments
from benchmarks.contender import REGISTRY, Options, Unavailable, Unsupported
from benchmarks.sampling import Plan, Samples
from benchmarks.workloads import Workload

ANSWER_WITHIN_S = 180
"""Longer than any step takes, the first build of the worker's environment included."""
END_WITHIN_S = 10
_LOG_LINES = 15


class ContenderFailed(Exception):
    """A contender raised, answered wrongly, died, hung, or left a process behind; the message says which."""


class DriverProcess:
    """The process of the contender registered as `contender`; it starts at the first `open`.

    It runs in `python`; by default in the contender's own environment, which is built if need be, or where the run does.
    """

    def __init__(self, contender: str, options: Options, python: str | None = None) -> None:
        self.contender = contender
        self._options = options
        self._python = python
        self._process: psutil.Popen | None = None
        self._connection: multiprocessing.connection.Connection | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()

    def open(self, workload: Workload) -> dict[str, str]:
        """Set the contender up for `workload` and verify an answer; returns what the report should say about it.

        Raises Unavailable where it cannot run here, Unsupported where it cannot do this workload, ContenderFailed where it should run
        but does not.
        """
        if self._process is None:
            self._start()
        answer = self._ask(
            "open",
            target=REGISTRY[self.contender].target,
            workload=asdict(workload),
            options=asdict(self._options),
        )
        if "unsupported" in answer:
            raise Unsupported(answer["unsupported"])
        facts: dict[str, str] = answer["facts"]
        return facts

    def measure(self, plan: Plan) -> Samples:
        """Nanoseconds of each call of the plan, the cost of timing taken off."""
        self._ask("measure", plan=asdict(plan))
        assert self._connection is not None
        return np.frombuffer(self._connection.recv_bytes(), np.int64)

    def stream(self, calls: int, window: int) -> int | None:
        """Nanoseconds that `calls` calls took with at most `window` under way; None where it takes one at a time."""
        nanoseconds: int | None = self._ask("stream", calls=calls, window=window)["ns"]
        return nanoseconds

    def close(self) -> None:
        """Close the contender. Raises ContenderFailed, having killed them, if processes of it are left."""
        self._ask("close")
        self._expect_gone(self.descendants(), "after close()")

    def end(self) -> None:
        """End the process and all below it; the driver can be opened again."""
        if self._process is None or self._connection is None:
            return
        process, self._process = self._process, None
        below = _descendants(process)
        self._connection.close()
        try:
            process.wait(END_WITHIN_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
        self._expect_gone(below, "after its process ended")

    def descendants(self) -> list[psutil.Process]:
        """The contender's processes but its driver, and but trackers of resources, which live as long as that."""
        return [] if self._process is None else [p for p in _descendants(self._process) if not _is_tracker(p)]

    @property
    def process(self) -> psutil.Process | None:
        """The driver itself: the caller's side of the contender. None before the first `open`."""
        return None if self._process is None else psutil.Process(self._process.pid)

    def _start(self) -> None:
        if self._python is None:
            self._python = peer_environments.interpreter(self.contender)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = psutil.Popen(
                [self._python, *self._program(), str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )
        self._connection = multiprocessing.connection.Connection(ours.detach())

    def _program(self) -> list[str]:
        """What the interpreter runs; the descriptor to answer on and the parent's process id are appended."""
        return ["-m", "benchmarks.driver"]

    def _environment(self) -> dict[str, str]:
        root = str(Path(__file__).resolve().parent.parent)
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        # No contender computes anything; threads of a linear algebra library would only be in the way of forks.
        environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = "1"
        return environment

    def _ask(self, ask: str, **arguments: Any) -> dict[str, Any]:
        assert self._connection is not None
        failure = f"no answer to {ask!r} within {ANSWER_WITHIN_S} s"
        try:
            self._connection.send_bytes(json.dumps({"do": ask, **arguments}).encode())
            if self._connection.poll(ANSWER_WITHIN_S):
                answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
                if "unavailable" in answer:
                    raise Unavailable(without_folders(answer["unavailable"]))
                if "error" not in answer:
                    return answer
                failure = answer["error"]
        except (EOFError, ConnectionError):
            failure = f"its process died at {ask!r}"
        log = self._log_tail()
        self._kill()
        raise ContenderFailed(without_folders(f"{self.contender}: {failure}\n{log}".rstrip()))

    def _kill(self) -> None:
        if self._process is None or self._connection is None:
            return
        process, self._process = self._process, None
        below = _descendants(process)
        self._connection.close()
        process.kill()
        process.wait()
        for child in _still_there(below):
            child.kill()

    def _expect_gone(self, processes: Iterable[psutil.Process], when: str) -> None:
        left = _still_there(processes)
        if left:
            names = ", ".join(f"{child.pid} {child.name()}" for child in left)
            for child in left:
                child.kill()
            raise ContenderFailed(f"{self.contender}: still running {when}: {names}")

    def _log_tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        self._log.seek(0, os.SEEK_END)
        return "\n".join(lines[-_LOG_LINES:])


def without_folders(told: str) -> str:
    """The text with files named, and not where they lie on this machine: what a run found is stored, and read elsewhere."""
    return re.sub(r"(?<![\w./])/(?:[^\s/\"':]+/)+", "", told)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def _is_tracker(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    # Python's own and loky's, and what torch has for its shared files.
    return "resource_tracker" in command or "torch_shm_manager" in command


def _still_there(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    left = list(processes)
    deadline = time.monotonic() + END_WITHIN_S
    while left := [process for process in left if _runs(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return left


def _runs(process: psutil.Process) -> bool:
    """Whether it is there, and not only waiting to be reaped."""
    try:
        status: str = process.status()
    except psutil.NoSuchProcess:
        return False
    return status != psutil.STATUS_ZOMBIE


class Drivers:
    """A driver process for each seat, started when first opened; a context manager that ends them all."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.seats: dict[str, DriverProcess] = {}

    def __enter__(self) -> Drivers:
        return self

    def __exit__(self, *exception: object) -> None:
        failures = []
        for driver in self.seats.values():
            try:
                driver.end()
            except ContenderFailed as failure:
                failures.append(failure)
        if failures and exception[0] is None:
            raise failures[0]

    def open(self, seat: str, contender: str, workload: Workload) -> dict[str, str]:
        """Open `contender` in the process of `seat`; see `DriverProcess.open`."""
        driver = self.seats.setdefault(seat, DriverProcess(contender, self._options))
        return driver.open(workload)

    def measure(self, seat: str, plan: Plan) -> Samples:
        return self.seats[seat].measure(plan)

    def close(self, seat: str) -> None:
        self.seats[seat].close()
