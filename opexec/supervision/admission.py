"""How many calls of a model may be under way at once: a seat for each, and what becomes of those that find none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

from ..errors import CallTimeout, OpexecError, Overloaded

_LOOK_AGAIN_S = 1.0


class Admission:
    """`limit` seats, given in the order in which they were asked for. Any thread may call any method."""

    def __init__(self, name: str, limit: int, waits: bool) -> None:
        self._name = name
        self._limit = limit
        self._waits = waits
        self._taken = 0
        self._waiting: deque[_Waiting] = deque()
        self._closed: Callable[[], OpexecError] | None = None
        self._lock = threading.Lock()

    def enter(self, deadline: float | None) -> None:
        """Take a seat, which `leave` gives back. Raises Overloaded, or CallTimeout at `deadline` (by `time.monotonic`)."""
        event = threading.Event()
        waiting = self._ask(event.set)
        if waiting is None:
            return
        try:
            while not waiting.ended:
                left = _LOOK_AGAIN_S if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise self._too_slow()
                event.wait(min(left, _LOOK_AGAIN_S))
            waiting.check()
        except BaseException:
            self._withdraw(waiting)
            raise

    async def enter_async(self, deadline: float | None) -> None:
        """`enter` for an event loop, which goes on meanwhile."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its coroutines with it
                loop.call_soon_threadsafe(event.set)

        waiting = self._ask(wake)
        if waiting is None:
            return
        try:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            try:
                await asyncio.wait_for(event.wait(), left)
            except asyncio.TimeoutError:
                raise self._too_slow() from None
            waiting.check()
        except BaseException:
            self._withdraw(waiting)
            raise

    def leave(self) -> None:
        """Give a seat back, to who waits longest."""
        with self._lock:
            if not self._waiting:
                self._taken -= 1
                return
            waiting = self._waiting.popleft()
            waiting.ended = waiting.seated = True
        waiting.wake()

    def close(self, error: Callable[[], OpexecError]) -> None:
        """Nobody is admitted any more: who waits, and who comes, is given `error`."""
        with self._lock:
            self._closed = error
            dismissed, self._waiting = self._waiting, deque()
        for waiting in dismissed:
            waiting.error = error()
            waiting.ended = True
            waiting.wake()

    def _ask(self, wake: Callable[[], None]) -> _Waiting | None:
        with self._lock:
            if self._closed is not None:
                raise self._closed()
            if self._taken < self._limit:
                self._taken += 1
                return None
            if not self._waits:
                raise Overloaded(
                    f"model {self._name!r} has {self._taken} calls under way or waiting, as many as max_pending={self._limit} allows; "
                    "call again later, or load it with a larger max_pending, more replicas, or when_full='wait'"
                )
            waiting = _Waiting(wake)
            self._waiting.append(waiting)
            return waiting

    def _withdraw(self, waiting: _Waiting) -> None:
        with self._lock:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                return
        if waiting.seated:  # in this very moment
            self.leave()

    def _too_slow(self) -> CallTimeout:
        return CallTimeout(
            f"model {self._name!r} had max_pending={self._limit} calls under way until the timeout of this one passed; it was not sent"
        )


class _Waiting:
    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.ended = False
        self.seated = False
        self.error: OpexecError | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error
