"""How many calls of a model may be under way at once: a seat for each, and what becomes of those that find none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from ..connection.timing import now
from ..errors import CallTimeout, OpexecError, Overloaded

_LOOK_AGAIN_S = 1.0


class Admission:
    """`limit` seats, given in the order in which they were asked for. Any thread may call any method.

    `waited` is told how long a call has waited for the seat that it got, in nanoseconds; not of one that found a seat.
    """

    def __init__(
        self, name: str, limit: int, waits: bool, waited: Callable[[int], object] | None = None
    ) -> None:
        self._name = name
        self._limit = limit
        self._waits = waits
        self._waited = waited
        self._owner = os.getpid()
        self._taken = 0
        self._waiting: deque[Seat] = deque()
        self._closed: Callable[[], OpexecError] | None = None
        self._lock = threading.RLock()  # a garbage collection inside may end a seat

    def enter(self, deadline: float | None) -> Seat:
        """Wait for a seat. Raises Overloaded, or CallTimeout at `deadline` (by `time.monotonic`)."""
        parked = threading.Lock()
        parked.acquire()
        seat = Seat(self, parked.release)
        if self._ask(seat):
            return seat
        seat.since = now()
        try:
            while not seat.answered:
                left = _LOOK_AGAIN_S if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise self._too_slow()
                parked.acquire(timeout=min(left, _LOOK_AGAIN_S))
            self._seated(seat)
        except BaseException:
            self._withdraw(seat)
            raise
        return seat

    async def enter_async(self, deadline: float | None) -> Seat:
        """`enter` for an event loop, which goes on meanwhile."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            if not woken.done():
                woken.set_result(None)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its coroutines with it
                loop.call_soon_threadsafe(end)

        seat = Seat(self, wake)
        if self._ask(seat):
            return seat
        seat.since = now()
        try:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            # Not `wait_for`: before Python 3.12 it loses a cancellation that comes together with the seat.
            done, _ = await asyncio.wait([woken], timeout=left)
            if not done:
                raise self._too_slow()
            self._seated(seat)
        except BaseException:
            self._withdraw(seat)
            raise
        return seat

    def close(self, error: Callable[[], OpexecError]) -> None:
        """Nobody is admitted any more: who waits, and who comes, is given `error`."""
        with self._lock:
            self._closed = error
            dismissed, self._waiting = self._waiting, deque()
        for seat in dismissed:
            seat.error = error()
            seat.answered = True
            seat.wake()

    def leave(self, seat: Seat) -> None:
        """Give a seat to who waits longest. For `Seat.leave`."""
        if (
            self._owner != os.getpid()
        ):  # a forked copy's: another thread of the original may have held the lock
            return
        with self._lock:
            if not seat.taken:
                return
            seat.taken = False
            if not self._waiting:
                self._taken -= 1
                return
            heir = self._waiting.popleft()
            heir.answered = heir.taken = True
        heir.wake()

    def _ask(self, seat: Seat) -> bool:
        """Whether there is one at once."""
        with self._lock:
            if self._closed is not None:
                raise self._closed()
            if self._taken < self._limit:
                self._taken += 1
                seat.taken = True
                return True
            if not self._waits:
                raise Overloaded(
                    f"model {self._name!r} has {self._taken} calls under way or waiting, as many as max_pending={self._limit} allows; "
                    "call again later, or load it with a larger max_pending, more replicas, or when_full='wait'"
                )
            self._waiting.append(seat)
            return False

    def _seated(self, seat: Seat) -> None:
        """It waits no more. Raises the error, if it was given that and no seat."""
        if seat.error is not None:
            raise seat.error
        if self._waited is not None:
            self._waited(now() - seat.since)

    def _withdraw(self, seat: Seat) -> None:
        with self._lock:
            with contextlib.suppress(ValueError):
                self._waiting.remove(seat)
        seat.leave()  # it may have been given in this very moment

    def _too_slow(self) -> CallTimeout:
        return CallTimeout(
            f"model {self._name!r} had max_pending={self._limit} calls under way until the timeout of this one passed; it was not sent"
        )


class Seat:
    """A call's seat, or its place among those that wait for one.

    It is given back by `leave`, and when nobody has it any more: Ctrl-C may interrupt a thread just before it could.
    """

    def __init__(self, admission: Admission, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.taken = False
        #: It waits no more: it is `taken`, or there is an `error`.
        self.answered = False
        self.error: OpexecError | None = None
        #: Since when it waited, by `timing.now`; 0 for one that was given at once.
        self.since = 0
        self._admission = admission

    def leave(self) -> None:
        """Give it back. Idempotent."""
        if self.taken:
            self._admission.leave(self)

    __del__ = leave
