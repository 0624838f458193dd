"""How a connection ends: by an error that every call in flight fails with, and every later one."""

from __future__ import annotations

import atexit
import copy
import os
import threading
from collections.abc import Callable

from ..errors import OpexecError, ProtocolError
from ..ipc import wire
from ..ipc.channel import Channel
from ..processes import leaving
from ..processes.worker import WorkerProcess
from . import registry
from .calls import Call, InFlight
from .output_memory import OutputMemory
from .reader_role import ReaderRole


class Ending:
    """See the module. The attributes are those of a `Connection`, which sets them."""

    process: WorkerProcess
    channel: Channel
    calls: InFlight
    pending: dict[int, Call]
    outputs: OutputMemory
    role: ReaderRole
    #: Held while a call is being published, and while the connection ends.
    _sending: threading.Lock
    #: Why it has ended.
    dead: OpexecError | None = None
    #: Why this side had the worker killed, if it did.
    condemned = ""

    def ended(self) -> OpexecError:
        """Why the connection ended, as a new exception: each caller's gets a traceback of its own."""
        leaving.hold()
        assert self.dead is not None
        return copy.copy(self.dead)

    def taken(self) -> tuple[int, ...] | None:
        """The record that the worker took last: it tells what it is at, and, looked at twice, whether it goes on."""
        return self.channel.producer.last_taken(wire.HEAD)

    def condemn(self, why: str) -> None:
        """Kill the worker; the error that its calls fail with says why."""
        self.condemned = self.condemned or why
        self.process.kill()

    def retire(self, error: OpexecError) -> bool:
        """Take no more calls, which fail with `error`, if none is in flight; False if one is. `close` must follow."""
        with self._sending:
            if self.pending:
                return False
            if self.dead is None:
                self.dead = error
            return True

    def end(self, error: OpexecError) -> None:
        """End the connection: every call in flight fails with `error`, later ones too."""
        with self._sending:
            if self.dead is not None:
                return
            self.dead = error
        self._dismiss()

    def broken(self, error: Exception) -> OpexecError:
        """Kill a worker that breaks the protocol, and give the error to raise."""
        self.process.kill()
        self.end(
            ProtocolError(
                f"worker {self.process.name!r} (pid {self.process.pid}) broke the protocol and was killed: {error}"
            )
        )
        return self.ended()

    def _died(self) -> OpexecError:
        if self.dead is None:
            taken = self.channel.producer.last_taken(wire.HEAD)
            busy = taken is not None and taken[0] == wire.CALL and self.calls.expects(taken[1])
            self.end(self.process.death("call" if busy else "idle", self.condemned))
        return self.ended()

    def _dismiss(self) -> None:
        self.calls.fail_all(self.ended)
        self.role.tell_heirs()

    def _in_thread(self, what: str, do: Callable[..., object], *arguments: object) -> bool:
        """Have a thread do it; False if there can be no more: whoever asks has to do it, and to wait."""
        name = f"opexec-{what}-{self.process.name}"
        try:
            threading.Thread(target=do, args=arguments, name=name, daemon=True).start()
        except (RuntimeError, MemoryError):
            return False
        return True


@atexit.register
def _leave() -> None:
    """At the interpreter's exit, just before the workers are killed: whoever calls now is told, and no daemon thread is."""
    leaving.begin()
    for connection in registry.known():
        if connection.dead is None:
            connection.dead = OpexecError(
                f"model {connection.process.name!r} is gone: the interpreter is exiting"
            )


def _orphan_after_fork() -> None:
    """A forked child shares the channel's memory with its parent; were both to use it, both would be corrupted."""
    for connection in registry.known():
        connection.dead = OpexecError(
            f"model {connection.process.name!r} belongs to process {os.getppid()}, which forked this one; "
            "load the model in the process that uses it"
        )


os.register_at_fork(after_in_child=_orphan_after_fork)
