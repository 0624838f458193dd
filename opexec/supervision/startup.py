"""The time in which a model has no worker that can be called, because one is loading: who waits for the end, and what became of it.

It ends once: with success, with the error that loading raised, or with the one that `close` gave. What waits for that end are threads
(`wait`) and calls that nobody waits for in a thread (`when_done`).
"""

from __future__ import annotations

import copy
import math
import os
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from typing import NamedTuple

from ..errors import CallTimeout, OpexecError
from ..processes import leaving
from . import watcher

#: A thread that waits looks again this often, in seconds, so that a signal reaches Python's handlers.
_LOOK_AGAIN_S = 1.0
#: Calls whose timeouts pass within so long, in seconds, are told together.
_TOGETHER_S = 0.002


class Startup:
    """Under way until `succeed` or `fail` is called. Any thread may call any method. `doing` is for messages."""

    def __init__(self, name: str, doing: str = "loading") -> None:
        self.failure: BaseException | None = None
        self._name = name
        self._doing = doing
        self._owner = os.getpid()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        #: Until the first of their deadlines, which is at `_rings_at`.
        self._alarm: watcher.Watch | None = None
        self._rings_at = math.inf

    @property
    def under_way(self) -> bool:
        return not self._done.is_set()

    @property
    def is_copy(self) -> bool:
        """Whether this is a forked copy of the process that loads the model."""
        return self._owner != os.getpid()

    def succeed(self, aside: bool = False) -> bool:
        """End well; False if it has ended before. `aside`: tell who waits in another thread, because this one has a lock."""
        return self._end(None, aside)

    def fail(self, error: BaseException, aside: bool = False) -> bool:
        """End with `error`, which everybody who waits is given; False if it has ended before. `aside`: see `succeed`."""
        return self._end(error, aside)

    def _end(self, error: BaseException | None, aside: bool) -> bool:
        with self._lock:
            if self._done.is_set():
                return False
            self.failure = error
            self._done.set()
            waiting, self._waiting = self._waiting, []
            alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()
        if aside and waiting:
            watcher.aside(f"opexec-started-{self._name}", self._tell, waiting, self.error)
        else:
            self._tell(waiting, self.error)
        return True

    def _tell(self, waiting: list[_Waiting], error: Callable[[], BaseException | None]) -> None:
        for one in waiting:
            try:
                one.action(error())
            except BaseException:  # of a user's callback: sys.exit(), say; the others must be told
                traceback.print_exc()

    def error(self) -> BaseException | None:
        """What it failed with, as a new exception: each caller's gets a traceback of its own."""
        if self.failure is None:
            return None
        leaving.hold()
        return copy.copy(self.failure)

    def wait(self, deadline: float | None = None) -> None:
        """Wait for the end. Raises what it failed with, or CallTimeout at `deadline` (by `time.monotonic`)."""
        if not self._done.is_set():
            self._refuse_copies()
        while not self._done.is_set():
            left = _LOOK_AGAIN_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise self._too_slow()
            self._done.wait(min(left, _LOOK_AGAIN_S))
        error = self.error()
        if error is not None:
            raise error

    def wait_for_end(self) -> None:
        """Wait for the end, good or bad."""
        if not self._done.is_set():
            self._refuse_copies()
        while not self._done.wait(_LOOK_AGAIN_S):
            pass

    def when_done(self, action: Callable[[BaseException | None], None], deadline: float | None) -> None:
        """Have `action` called once, at the end, in the order of these calls, with None or the error; with CallTimeout if `deadline` passes first.

        It is called in some other thread, or at once in this one where the end has come.
        """
        self._refuse_copies()
        with self._lock:
            if not self._done.is_set():
                if deadline is not None:
                    self._ring_at(deadline)
                self._waiting.append(_Waiting(action, math.inf if deadline is None else deadline))
                return
        action(self.error())

    def _ring_at(self, when: float) -> None:
        """Have a look taken then at whose deadline has passed. Under the lock."""
        former = self._alarm
        if former is not None and self._rings_at <= when:
            return
        own = weakref.ref(self)

        def ring() -> None:
            startup = own()
            if startup is not None:  # not in the watcher's thread: what is told may run a user's callback
                watcher.aside(f"opexec-late-{startup._name}", startup._tell_late)

        self._alarm, self._rings_at = watcher.at(when, ring), when
        if former is not None:  # last: interrupted before, it rings for nothing, and the other one for all
            former.cancel()

    def _tell_late(self) -> None:
        """Tell those whose deadline has passed."""
        present = time.monotonic()
        with self._lock:
            late = [one for one in self._waiting if one.deadline <= present]
            self._waiting = [one for one in self._waiting if one.deadline > present]
            self._alarm = None
            first = min((one.deadline for one in self._waiting), default=math.inf)
            if first < math.inf:
                self._ring_at(max(first, present + _TOGETHER_S))
        self._tell(late, self._too_slow)

    def _too_slow(self) -> CallTimeout:
        return CallTimeout(
            f"model {self._name!r} was still {self._doing} when the timeout passed; it goes on {self._doing}"
        )

    def _refuse_copies(self) -> None:
        """In a forked copy nobody loads the model, and it would be waited for without end."""
        if self.is_copy:
            raise self.of_a_copy()

    def of_a_copy(self) -> OpexecError:
        return OpexecError(
            f"model {self._name!r} was being loaded by process {self._owner} when that forked this one; "
            "load the model in the process that uses it"
        )


class _Waiting(NamedTuple):
    action: Callable[[BaseException | None], None]
    deadline: float
