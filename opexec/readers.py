"""Readers of answers for calls that no thread waits for: a thread for Futures, the event loop for coroutines.

Both take the reader's role of a connection only while they have calls in flight and nobody else has it.
"""

from __future__ import annotations

import asyncio
import threading

from .calls import Call
from .connection import Connection

_LOOK_AGAIN_MS = 100
#: The thread stays this long after the last Future, in seconds: starting one costs more than a call.
_LINGER_S = 1.0


class Collector:
    """Reads answers for Futures, in a thread that lives as long as there are some."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._calls: dict[int, Call] = {}
        self._stir = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, call: Call) -> None:
        """Read the answer of `call`, which has been sent, or end it at its deadline."""
        self._calls[call.id] = call
        with self._lock:
            if self._thread is None:
                self._connection.add_heir(self._stir.set)
                name = f"opexec-collector-{self._connection.process.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
                return
        self._stir.set()

    def _run(self) -> None:
        connection = self._connection
        while True:
            self._forget_finished()
            if not self._calls and not self._stir.wait(_LINGER_S):
                with self._lock:
                    if not self._calls:
                        connection.remove_heir(self._stir.set)
                        self._thread = None
                        return
            self._stir.clear()
            if self._calls and connection.take_role(self):
                try:
                    while self._calls and connection.dead is None:
                        connection.read_available()
                        self._forget_finished()
                        if self._calls:
                            connection.sleep(_LOOK_AGAIN_MS)
                finally:
                    connection.leave_role(self)
            elif self._calls:
                self._stir.wait(_LOOK_AGAIN_MS / 1000)

    def _forget_finished(self) -> None:
        for id, call in list(self._calls.items()):
            if call.deadline is not None:
                self._connection.expire(call)
            if call.answer is not None or call.failure is not None:
                del self._calls[id]


class LoopReader:
    """Reads answers for the coroutines of one event loop, from the loop itself. All methods but `heir` run in the loop's thread."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._calls: set[Call] = set()
        self._fds: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        connection.add_heir(self.heir)

    def heir(self) -> None:
        """Take the reader's role, or see that the connection has ended, as soon as the loop comes to it."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take)

    def add(self, call: Call) -> None:
        """Read the answer of `call`, which has been sent."""
        self._calls.add(call)
        self._take()

    def remove(self, call: Call) -> None:
        """Stop waiting for `call`; the last one gives the role up."""
        self._calls.discard(call)
        if not self._calls:
            self._leave()

    def close(self) -> None:
        """Give up the role, for good."""
        self._calls.clear()
        self._leave()
        self._connection.remove_heir(self.heir)

    def _take(self) -> None:
        connection = self._connection
        if self._calls and not self._fds and connection.dead is None and connection.take_role(self):
            self._fds = [
                connection.channel.bell.fd,
                connection.channel.control.fileno(),
                connection.process.pidfd,
            ]
            for fd in self._fds:
                self._loop.add_reader(fd, self._read, fd)
            self._announce()
        elif connection.dead is not None:
            self._leave()

    def _read(self, fd: int | None) -> None:
        connection = self._connection
        bell = connection.channel.bell
        bell.withdraw()
        bell.clear()
        connection.read_available()
        if fd is not None and fd != bell.fd:
            connection.look_around([fd])
        if not self._calls or connection.dead is not None:
            self._leave()
        elif self._fds:
            self._announce()

    def _announce(self) -> None:
        connection = self._connection
        while not connection.channel.bell.announce(connection.channel.consumer.head):
            connection.read_available()
            if connection.dead is not None or not self._calls:
                self._leave()
                return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_LOOK_AGAIN_MS / 1000, self._read, None)

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fds:
            for fd in self._fds:
                self._loop.remove_reader(fd)
            self._fds = []
            self._connection.channel.bell.withdraw()
            self._connection.leave_role(self)
