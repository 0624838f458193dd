"""The calls of one event loop: they are sent, and their answers read, by the loop itself, which never waits.

It takes the reader's role of a connection only while it has calls in flight and nobody else has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque
from collections.abc import Callable

from . import Connection
from .calls import Call

_LOOK_AGAIN_MS = 100

#: What could not be sent at once is tried again after so long, in seconds, and then after twice as long each time, up to the second.
_TRY_AGAIN_S = 0.001
_TRY_AGAIN_MOST_S = 0.016

#: Of a connection, that can become readable: its bell's, its control socket's and the one that tells of its worker's end.
_DESCRIPTORS = 3


class LoopSender:
    """Sends the calls of one event loop, in whose thread all methods run. It never waits: what cannot be sent at once is tried again, in turn."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._unsent: deque[tuple[Call, asyncio.Future[BaseException | None]]] = deque()
        self._pause = _TRY_AGAIN_S

    def send(self, call: Call) -> asyncio.Future[BaseException | None] | None:
        """Send `call`; None if that is done. Else a future, whose result is what it failed with, or None once it is sent.

        As soon as that future is done, whoever does it, the call is not sent any more. Raises what ended the connection.
        """
        if not self._unsent and self._connection.try_send(call):
            return None
        sent: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._unsent.append((call, sent))
        if len(self._unsent) == 1:
            self._try_later()
        return sent

    def _try_again(self) -> None:
        while self._unsent:
            call, sent = self._unsent[0]
            if not sent.done():
                try:
                    if not self._connection.try_send(call):
                        self._try_later()
                        return
                    sent.set_result(None)
                except BaseException as error:
                    # Ctrl-C too: it goes to the coroutine, and the others are still sent.
                    sent.set_result(error)
            self._unsent.popleft()
            self._pause = _TRY_AGAIN_S

    def _try_later(self) -> None:
        self._loop.call_later(self._pause, self._try_again)
        self._pause = min(2 * self._pause, _TRY_AGAIN_MOST_S)


class LoopReader:
    """Reads answers for the coroutines of one event loop, from the loop itself. All methods but `heir` run in the loop's thread.

    Between its turns it does not keep the reader's role, because nobody knows how long the loop is busy with other things: it leaves the bell
    announced, and whoever wants to read meanwhile just does.
    """

    #: Asked by the connection of whoever has the reader's role: what takes long is to be done elsewhere.
    must_not_wait = True

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._calls: set[Call] = set()
        #: Of the connection's descriptors, while there are calls. Whoever closes those does not wait for the loop, which watches this one instead.
        self._epoll: select.epoll | None = None
        self._watched = False
        self._timer: asyncio.TimerHandle | None = None
        self.sender = LoopSender(connection, loop)
        self._reading = False
        connection.role.add_heir(self.heir)

    def heir(self) -> None:
        """Read, or see that the connection has ended, as soon as the loop comes to it."""
        try:
            here = asyncio.get_running_loop() is self._loop and not self._reading
        except RuntimeError:
            here = False
        if here:
            self._read()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._read)

    def add(self, call: Call) -> None:
        """Read until the answer of `call`, which has been sent, or until there is room for it."""
        self._calls.add(call)
        self._read()

    def remove(self, call: Call) -> None:
        """Stop waiting for `call`."""
        self._calls.discard(call)
        if not self._calls:
            self._ignore()
            if self._connection.role.take(self):  # nobody listens to the bell any more
                self._connection.role.leave(self)

    def _on_ready(self) -> None:
        self._read(became_readable=True)

    def _read(self, became_readable: bool = False) -> None:
        """Deliver what is there, and have the loop come here again when there is more. `became_readable`: some of the descriptors did."""
        self._reading = True  # it may become its own heir
        try:
            # By default there would be room for a thousand, and where memory is short for none.
            ready = self._epoll.poll(0, _DESCRIPTORS) if became_readable and self._epoll else []
            self._read_on([fd for fd, _ in ready])
        except MemoryError:  # the loop would only log it
            self._give_up(self._connection.unread)
        except OSError as error:  # no descriptor is left, say
            number, why = (
                error.errno,
                f"the event loop cannot wait for the worker's answers: {error.strerror}",
            )
            self._give_up(lambda: OSError(number, why))
        finally:
            self._reading = False

    def _give_up(self, error: Callable[[], Exception]) -> None:
        """End the calls that have been sent, each with an error of its own. What is still to be sent may have more luck."""
        for call in list(self._calls):
            self._connection.give_up(call, error())
        if self._calls:
            self._look_later()

    def _read_on(self, ready: list[int]) -> None:
        connection = self._connection
        bell = connection.channel.bell
        if not self._calls or connection.dead is not None:
            self._ignore()
            return
        if not connection.role.take(self):
            # Who has the role reads for this loop too, and tells the heirs when leaving. The timer sees to it that one who cannot
            # tell any more (for its own deadline, or Ctrl-C) is not waited for.
            self._unwatch()
            self._look_later()
            return
        announced = False
        try:
            if self._epoll is None and connection.dead is None:
                self._epoll = self._opened()
            if bell.fd in ready:
                bell.clear()
            connection.read_available()
            connection.look_around([fd for fd in ready if fd != bell.fd])
            while connection.dead is None and not announced:
                announced = bell.announce(connection.channel.consumer.head)
                if not announced:
                    connection.read_available()
        finally:
            try:
                connection.role.step_aside(self, announced)
            except BaseException:  # Ctrl-C in this very moment
                connection.role.leave(self)
                raise
        if connection.dead is not None:
            self._ignore()
            return
        if connection.going:  # what tells of that would go on telling
            self._unwatch()
        else:
            self._watch()
        self._look_later()

    def _opened(self) -> select.epoll:
        """While this has the role nobody closes the descriptors: the numbers are not another file's."""
        channel = self._connection.channel
        epoll = select.epoll()
        try:
            for fd in (channel.bell.fd, channel.control.fileno(), self._connection.process.pidfd):
                epoll.register(fd, select.EPOLLIN)
        except BaseException:
            epoll.close()
            raise
        return epoll

    def _watch(self) -> None:
        if not self._watched and self._epoll is not None:
            self._loop.add_reader(self._epoll, self._on_ready)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched and self._epoll is not None:
            self._loop.remove_reader(self._epoll)
            self._watched = False

    def _look_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_LOOK_AGAIN_MS / 1000, self._look_again)

    def _look_again(self) -> None:
        if self._connection.dead is None:
            self._connection.channel.bell.ring_again()
        self._read()

    def _ignore(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unwatch()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
