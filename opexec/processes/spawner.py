"""Start child processes from a thread that lives as long as the process.

The parent-death signal that a worker asks for (PR_SET_PDEATHSIG) is tied to the *thread* that forked it: a worker started by a thread
that ends is killed with it. So one daemon thread starts them all.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import Any

#: A signal that comes just before a thread goes to sleep wakes nobody: its handler, Ctrl-C's too, runs when the thread looks again.
_LOOK_AGAIN_S = 0.5


def spawn(
    argv: Sequence[str | os.PathLike[str]], *, cpus: Collection[int] | None = None, **arguments: Any
) -> subprocess.Popen[bytes]:
    """`subprocess.Popen(argv, **arguments)` in the spawner's thread. Raises what that raises.

    With `cpus`, the process runs on those cores alone from its first instruction on; ValueError names those it cannot have.
    An interrupted call leaves no process behind.
    """
    request = _Request(argv, cpus, arguments)
    try:
        _Spawner.current().requests.put(request)
        while not request.done.wait(_LOOK_AGAIN_S):
            pass
    except BaseException:
        request.abandon()
        raise
    return request.outcome()


class _Request:
    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        cpus: Collection[int] | None,
        arguments: dict[str, Any],
    ) -> None:
        self.done = threading.Event()
        self._argv = argv
        self._cpus = cpus
        self._arguments = arguments
        self._lock = threading.Lock()
        self._abandoned = False
        self._process: subprocess.Popen[bytes] | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            with _on(self._cpus), _no_forks:
                process = subprocess.Popen(self._argv, **self._arguments)
        except BaseException as error:
            self._error = error
        else:
            with self._lock:
                self._process = process
                if self._abandoned:
                    _discard(process)
        self.done.set()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._process is not None:
                _discard(self._process)

    def outcome(self) -> subprocess.Popen[bytes]:
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback refers to this frame
        assert self._process is not None
        return self._process


class _Spawner:
    """The thread and its requests; a forked child makes its own when it needs one."""

    _current: _Spawner | None = None

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="opexec-spawner", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.requests.get().run()

    @classmethod
    def current(cls) -> _Spawner:
        with _starting:
            if cls._current is None:
                cls._current = cls()
            return cls._current


_starting = threading.Lock()

# A fork by another thread while Popen runs would copy the pipe on which Popen waits for the exec: Popen would return when the copy ends.
_no_forks = threading.RLock()


def _after_fork_in_child() -> None:
    global _starting, _no_forks
    _starting, _no_forks = threading.Lock(), threading.RLock()
    _Spawner._current = None


os.register_at_fork(
    before=lambda: _no_forks.acquire(),
    after_in_parent=lambda: _no_forks.release(),
    after_in_child=_after_fork_in_child,
)


@contextlib.contextmanager
def _on(cpus: Collection[int] | None) -> Iterator[None]:
    """Have this thread, and what it starts, run on these cores alone."""
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        # Cores that do not exist, or that the control group withholds, are left out in silence, and none at all is an error.
        with contextlib.suppress(OSError, OverflowError):
            os.sched_setaffinity(0, cpus)
        if os.sched_getaffinity(0) != set(cpus):
            raise ValueError(f"cpus is {sorted(cpus)}; {_usable(cpus)}")
        yield
    finally:
        os.sched_setaffinity(0, before)


def _usable(cpus: Collection[int]) -> str:
    refused = []
    for core in sorted(cpus):
        try:
            os.sched_setaffinity(0, [core])
        except (OSError, OverflowError):
            refused.append(core)
    return f"this machine, or this process's control group, does not have {', '.join(map(str, refused))}"


def _discard(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
