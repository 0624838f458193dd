"""The thread that sees to the Futures of a connection: to those with a callback, and to those for whose answer nobody waits.

Completing a Future runs its callbacks. They are the user's, and may call the same model, close it, or take long: they never run in a thread
that has the reader's role, nor in one that waits for a call of its own. A Future without callbacks is completed by the thread that waits for
its result, which reads the answer itself (`Connection.attend`): handing it over from thread to thread would cost more than the call.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

from . import Connection
from .calls import Call

_LOOK_AGAIN_S = 0.1
#: While Futures are open whose owners may come for their answers, the thread looks this often, in seconds, whether anybody reads.
_NAP_S = 0.002
#: So many naps it takes after the last Future before it sleeps until the next.
_NAPS = 20
#: It stays so long after the last Future, in seconds: starting a thread costs more than a call.
_LINGER_S = 1.0
#: Between two attempts to read for which there is no memory, in seconds.
_PAUSE_S = 0.1


class Collector:
    """Completes Futures, in a thread that lives as long as there are some."""

    #: Asked by the connection of whoever has the reader's role: a thread that comes to wait for its own call is to have it.
    yields_role = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open: dict[Call, Callable[[Call], None]] = {}
        #: Calls whose ends are to be told at once.
        self._watched: set[Call] = set()
        self._timed: set[Call] = set()
        self._ended: deque[Call] = deque()
        self._stir = threading.Event()
        #: The thread sleeps without a look at what is submitted, or until the reader's role falls free.
        self._asleep = self._follows = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def expect(self, call: Call, complete: Callable[[Call], None], watched: bool) -> None:
        """Run `complete`, with the call, some time after `call`, which is about to be sent, has its answer or a failure; `watched`: at once.

        `see_to` or `forget` must follow.
        """
        self._open[call] = complete
        if call.deadline is not None:
            self._timed.add(call)
        if watched:
            call.finish = self._end
            self._watched.add(call)

    def forget(self, call: Call) -> None:
        """Undo `expect`: the call was not sent, or nobody waits for it, or it has been completed elsewhere."""
        self._open.pop(call, None)
        self._timed.discard(call)
        self._watched.discard(call)

    def watch(self, call: Call) -> None:
        """Run what `expect` was given at once when `call`, which has been sent, ends; it may have ended."""
        call.finish = self._end
        self._watched.add(call)
        if call.answer is not None or call.failure is not None:
            self._ended.append(call)
        if call not in self._open:  # it was completed meanwhile
            self._watched.discard(call)
        self.see_to()
        self._stir.set()

    def see_to(self) -> None:
        """See to the calls that have been sent since."""
        thread = self._thread
        # In a callback, which may wait for the call, another thread takes over.
        if thread is None or thread is threading.current_thread():
            with self._lock:
                if self._thread is None or self._thread is threading.current_thread():
                    self._start()
        if self._asleep or self._watched:
            self._stir.set()

    def _start(self) -> None:
        name = f"opexec-collector-{self._connection.process.name}"
        before = self._thread
        try:
            if before is None:
                self._connection.role.add_heir(self._heir)
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        except BaseException:  # no more threads, or Ctrl-C: the next Future tries again
            self._thread = before
            if before is None:
                self._connection.role.remove_heir(self._heir)
            raise

    def _heir(self) -> None:
        """The role is free, or the connection has ended."""
        if self._follows or self._watched or self._connection.dead is not None:
            self._stir.set()

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
            self._connection.give_up(call, self._connection.unread())

    def _serve(self) -> None:
        connection = self._connection
        me = threading.current_thread()
        naps = 0
        while True:
            self._stir.clear()
            self._expire()
            while self._thread is me and (call := self._next_ended()) is not None:
                self._complete(call)
            if self._thread is not me:
                return
            if connection.dead is not None and not connection.pending and not self._ended:
                # Nothing comes any more: what is left belongs to threads that were interrupted, by Ctrl-C.
                for call in list(self._open):
                    if call.answer is None and call.failure is None:
                        self.forget(call)
            if self._open:
                naps = 0
                self._look_after_them()
            elif naps < _NAPS:
                naps += 1
                self._stir.wait(_NAP_S)
            elif self._leave():
                return

    def _leave(self) -> bool:
        """Wait for the next Future; True if none came, and the thread is to end."""
        self._asleep = True
        try:
            if self._open or self._stir.wait(_LINGER_S):
                return False
        finally:
            self._asleep = False
        with self._lock:
            if self._open:
                return False
            self._connection.role.remove_heir(self._heir)
            self._thread = None
            if self._open:  # just now, by one who still saw this thread
                self._connection.role.add_heir(self._heir)
                self._thread = threading.current_thread()
            return self._thread is None

    def _look_after_them(self) -> None:
        """Read, for as long as is needed and nobody else does; or wait until it may be needed."""
        connection = self._connection
        if not self._watched and self._others_read():
            return
        self._follows = True
        try:
            if connection.dead is not None or not connection.role.take(self):
                self._stir.wait(self._patience_s())
                return
        finally:
            self._follows = False
        calls = connection.calls
        try:
            connection.read_available()
            while self._open and self._next_ended() is None and connection.dead is None and not calls.parked:
                connection.sleep(int(self._patience_s() * 1000))
                connection.read_available()
                self._expire()
        finally:
            self._follows = True
            connection.role.leave(self)
        if calls.parked:  # a thread that has been told to read: not before it had its turn
            self._stir.wait(_NAP_S)
        self._follows = False

    def _others_read(self) -> bool:
        """Nap, and tell whether somebody took answers meanwhile."""
        consumer = self._connection.channel.consumer
        head = consumer.head
        return self._stir.wait(min(_NAP_S, self._patience_s())) or consumer.head != head

    def _next_ended(self) -> Call | None:
        """A call that has ended. A worker answers in order: of those that are not watched the first that has been sent tells."""
        if self._ended:
            return self._ended[0]
        while True:
            try:
                for call in self._open:
                    if call.answer is not None or call.failure is not None:
                        return call
                    if call.id:
                        break
                return None
            except RuntimeError:  # the dict has changed: another thread submits
                continue

    def _complete(self, call: Call) -> None:
        if self._ended and self._ended[0] is call:
            self._ended.popleft()
        complete = self._open.pop(call, None)
        self.forget(call)
        if complete is not None:
            try:
                complete(call)
            except BaseException:
                # Of a user's callback: sys.exit(), say. The other Futures must still be completed.
                traceback.print_exc()

    def _expire(self) -> None:
        for call in list(self._timed):
            self._connection.expire(call)
            if call.failure is not None:
                self._timed.discard(call)
                self._ended.append(call)

    def _patience_s(self) -> float:
        """How long to sleep at most: the nearest deadline is to be seen in time."""
        deadline = min(
            (call.deadline for call in list(self._timed) if call.deadline is not None), default=None
        )
        if deadline is None:
            return _LOOK_AGAIN_S
        # To the next millisecond, which is how finely a reader sleeps.
        return min(max(deadline - time.monotonic(), 0) + 0.001, _LOOK_AGAIN_S)
