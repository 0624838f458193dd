"""A worker of another process, as an attached client sees it: what `Connection` needs of a `WorkerProcess`."""

from __future__ import annotations

import contextlib
import os
import select
import time
import weakref
from typing import Any

from ..errors import CallTimeout, WorkerDied
from ..ipc import faults
from ..ipc.channel import close_all
from ..ipc.control import Control

_LOOK_AGAIN_MS = 1000
#: A process that dies has its sockets closed a moment before its end can be seen; so long one that is gone from its socket may take.
_DYING_MS = 1000


class NotLetIn(WorkerDied):
    """The worker lives on, and does not let this process in."""


class AttachedProcess:
    """It cannot be waited for, killed or asked what it printed: that is its owner's affair. Who is attached can only leave.

    Attributes as in `worker.WorkerProcess`. `owner` is the process id of the owner.
    """

    def __init__(self, name: str, told: dict[str, Any], control: Control, pidfd: int) -> None:
        self.name = name
        self.pid: int = told["pid"]
        self.owner: int = told["owner"]
        self.interpreter: str = told["interpreter"]
        self.hello: dict[str, Any] = {"python": told["python"], "numpy": told["numpy"]}
        self.control = control
        self.pidfd = pidfd
        self.limited_by: tuple[str, ...] = ()
        self._process = os.getpid()
        # Not at the interpreter's exit, where daemon threads may still wait for answers and would complain.
        weakref.finalize(self, _forget, control, pidfd).atexit = False

    @property
    def is_copy(self) -> bool:
        """Whether this process is a forked copy of the one that attached."""
        return self._process != os.getpid()

    @property
    def alive(self) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def tail(self, stream: str = "stderr") -> tuple[str, ...]:
        """Nothing: what it prints goes to its owner."""
        return ()

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next control message and its descriptors. Raises faults.PeerGone, faults.ProtocolError, or CallTimeout past `deadline`."""
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        died = False
        while True:
            try:
                return self.control.receive(timeout=0)
            except TimeoutError:
                pass
            if died:
                raise faults.PeerGone(f"{self._who()} has died")
            left_ms = _LOOK_AGAIN_MS
            if deadline is not None:
                left_ms = min(left_ms, int((deadline - time.monotonic()) * 1000) + 1)
                if left_ms <= 0:
                    raise CallTimeout(f"{self._who()} did not answer within its deadline")
            died = any(fd == self.pidfd for fd, _ in poll.poll(left_ms))

    def ask_where(self) -> None:
        """It does not hang as far as this process is concerned, which never kills it."""

    def kill(self) -> None:
        """Leave: a worker that is not one's own is not killed."""
        self.control.close()

    def death(self, stage: str, why: str = "") -> WorkerDied:
        """Why the connection ended while `stage` (see WorkerDied). How the worker ended is known to its owner alone."""
        alive = self._lives_on() if stage == "load" else self.alive
        if stage == "load" and alive:
            return self._not_let_in()
        how = (
            "closed its connection to this client"
            if alive
            else "died; how, and what it printed last, is known to its owner"
        )
        return WorkerDied(
            f"{self._who()} {how} while {'it had a call of this client' if stage == 'call' else 'it had none'}"
            if stage != "load"
            else f"{self._who()} {how} while this process attached to it",
            pid=self.pid,
            exit_code=None,
            signal=None,
            stderr=(),
            stage=stage,
        )

    def _lives_on(self) -> bool:
        """Whether it lives, though the connection has ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        left = self.control.fileno() < 0  # then it was this process that closed it
        return not poll.poll(0 if left else _DYING_MS)

    def _not_let_in(self) -> WorkerDied:
        why = "it may have no file descriptors left for another client; its owner's log says more"
        with contextlib.suppress(faults.PeerGone, faults.ProtocolError):
            for message, fds in self.control.drain():
                close_all(fds)
                if message["type"] == "failed":
                    why = refusal(message)
        return NotLetIn(
            f"{self._who()} does not let this process in, and lives on: {why}",
            pid=self.pid,
            exit_code=None,
            signal=None,
            stderr=(),
            stage="load",
        )

    def close(self, grace: float = 0.0) -> None:
        """Leave. The worker takes back what it had of this process. Idempotent."""
        if not self.is_copy:
            self.control.close()

    def _who(self) -> str:
        return f"worker {self.name!r} (pid {self.pid}, of process {self.owner})"

    def __repr__(self) -> str:
        return f"<AttachedProcess {self.name!r} pid {self.pid}, {'alive' if self.alive else 'dead'}>"


def refusal(message: dict[str, Any]) -> str:
    """What a worker's ``failed`` message says."""
    error = message.get("error")
    return str(error.get("message")) if isinstance(error, dict) else repr(error)


def _forget(control: Control, pidfd: int) -> None:
    control.close()
    os.close(pidfd)
