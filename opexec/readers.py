"""Readers of answers for calls that no thread waits for: a thread for Futures, the event loop for coroutines. The loop sends those, too.

Both readers take the reader's role of a connection only while they have calls in flight and nobody else has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

from .calls import Call
from .connection import Connection

_LOOK_AGAIN_MS = 100
#: The thread stays this long after the last Future, in seconds: starting one costs more than a call.
_LINGER_S = 1.0
#: Between two attempts to read for which there is no memory, in seconds.
_PAUSE_S = 0.1
_NO_MEMORY = "there was no memory to read the worker's answers"

#: What could not be sent at once is tried again after so long, in seconds, and then after twice as long each time, up to the second.
_TRY_AGAIN_S = 0.001
_TRY_AGAIN_MOST_S = 0.016


class Collector:
    """Reads answers for Futures and completes them, in a thread that lives as long as there are some.

    Completing a Future runs its callbacks. They are the user's, and may call the same model, close it, or take long: they never run in a
    thread that has the reader's role, nor in one that waits for a call of its own.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open: dict[Call, Callable[[], None]] = {}
        self._timed: set[Call] = set()
        self._ended: deque[Call] = deque()
        self._stir = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def expect(self, call: Call, complete: Callable[[], None]) -> None:
        """Run `complete` once `call`, which is about to be sent, has its answer or a failure. `wake` or `forget` must follow."""
        call.finish = self._end
        self._open[call] = complete
        if call.deadline is not None:
            self._timed.add(call)

    def forget(self, call: Call) -> None:
        """Undo `expect`: the call was not sent."""
        self._open.pop(call, None)
        self._timed.discard(call)

    def wake(self) -> None:
        """See to the calls that have been sent since."""
        with self._lock:
            # In a callback, which may wait for the call, another thread takes over.
            if self._thread is None or self._thread is threading.current_thread():
                self._start()
        self._stir.set()

    def _start(self) -> None:
        name = f"opexec-collector-{self._connection.process.name}"
        before = self._thread
        try:
            if before is None:
                self._connection.role.add_heir(self._stir.set)
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        except BaseException:  # no more threads, or Ctrl-C: the next Future tries again
            self._thread = before
            if before is None:
                self._connection.role.remove_heir(self._stir.set)
            raise

    def _end(self, call: Call) -> None:
        """Called by whoever reads, maybe twice for one call."""
        self._ended.append(call)
        if threading.current_thread() is not self._thread:
            self._stir.set()

    def _run(self) -> None:
        failed = 0
        while True:
            try:
                if failed == 2:
                    failed = 0
                    self._give_up()
                self._serve()
                return
            except MemoryError:  # without this thread no Future would ever be completed
                failed += 1
                time.sleep(_PAUSE_S)

    def _give_up(self) -> None:
        """There was no memory to read on: the calls in flight end, as one does whose own thread reads."""
        for call in list(self._open):
            self._connection.give_up(call, MemoryError(_NO_MEMORY))
            if call.answer is not None or call.failure is not None:
                self._ended.append(call)

    def _serve(self) -> None:
        connection = self._connection
        me = threading.current_thread()
        while True:
            self._stir.clear()
            self._expire()
            while self._thread is me and self._ended:
                self._complete(self._ended.popleft())
            if self._thread is not me:
                return
            if connection.dead is not None and not connection.pending and not self._ended:
                # Nothing comes any more: what is left belongs to threads that were interrupted, by Ctrl-C.
                self._open.clear()
                self._timed.clear()
            if not self._open:
                if not self._stir.wait(_LINGER_S):
                    with self._lock:
                        if not self._open:
                            connection.role.remove_heir(self._stir.set)
                            self._thread = None
                            return
            elif connection.dead is None and connection.role.take(self):
                try:
                    connection.read_available()
                    while self._open and not self._ended and connection.dead is None:
                        connection.sleep(self._patience_ms())
                        connection.read_available()
                        self._expire()
                finally:
                    connection.role.leave(self)
            else:
                self._stir.wait(self._patience_ms() / 1000)

    def _complete(self, call: Call) -> None:
        self._timed.discard(call)
        complete = self._open.pop(call, None)
        if complete is not None:
            try:
                complete()
            except (
                BaseException
            ):  # of a user's callback: sys.exit(), say; the other Futures must still be completed
                traceback.print_exc()

    def _expire(self) -> None:
        for call in list(self._timed):
            self._connection.expire(call)

    def _patience_ms(self) -> int:
        """How long to sleep at most: the nearest deadline is to be seen in time."""
        deadline = min(
            (call.deadline for call in list(self._timed) if call.deadline is not None), default=None
        )
        if deadline is None:
            return _LOOK_AGAIN_MS
        return int(min(max(deadline - time.monotonic(), 0) * 1000 + 1, _LOOK_AGAIN_MS))


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
                except (
                    BaseException
                ) as error:  # Ctrl-C too: it goes to the coroutine, and the others are still sent
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
        #: Of the connection's descriptors. Whoever closes those does not wait for the loop, which watches this one instead: it stays.
        self._epoll = select.epoll()
        self._registered = self._watched = False
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
            self._read([])
        else:
            try:
                self._loop.call_soon_threadsafe(self._read, [])
            except RuntimeError:  # the loop is closed
                self._epoll.close()

    def add(self, call: Call) -> None:
        """Read until the answer of `call`, which has been sent, or until there is room for it."""
        self._calls.add(call)
        self._read([])

    def remove(self, call: Call) -> None:
        """Stop waiting for `call`."""
        self._calls.discard(call)
        if not self._calls:
            self._ignore()
            if self._connection.role.take(self):  # nobody listens to the bell any more
                self._connection.role.leave(self)

    def _on_ready(self) -> None:
        self._read([fd for fd, _ in self._epoll.poll(0)])

    def _read(self, ready: list[int]) -> None:
        """Deliver what is there, and have the loop come here again when there is more. `ready` are the descriptors that became readable."""
        self._reading = True  # it may become its own heir
        try:
            self._read_on(ready)
        except MemoryError:  # the loop would only log it
            for call in list(self._calls):
                self._connection.give_up(call, MemoryError(_NO_MEMORY))
        finally:
            self._reading = False

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
            if not self._registered:
                self._register()
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

    def _register(self) -> None:
        """While this has the role nobody closes the descriptors: the numbers are not another file's."""
        connection = self._connection
        if connection.dead is None:
            channel = connection.channel
            for fd in (channel.bell.fd, channel.control.fileno(), connection.process.pidfd):
                with contextlib.suppress(FileExistsError):  # interrupted at the last attempt
                    self._epoll.register(fd, select.EPOLLIN)
            self._registered = True

    def _watch(self) -> None:
        if not self._watched:
            self._loop.add_reader(self._epoll, self._on_ready)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.remove_reader(self._epoll)
            self._watched = False

    def _look_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_LOOK_AGAIN_MS / 1000, self._look_again)

    def _look_again(self) -> None:
        if self._connection.dead is None:
            self._connection.channel.bell.ring_again()
        self._read([])

    def _ignore(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unwatch()
        if self._connection.dead is not None:
            self._epoll.close()
