"""A Future without a lock until a second thread takes an interest in it.

A `concurrent.futures.Future` makes a Condition for itself and takes it at every step, which is a tenth of what a small call costs. Here the
Condition is made when it is first asked for, as every method of Future that needs it does. The thread that finishes the Future and those that
ask for the Condition agree through one entry, which the first of them sets (`dict.setdefault` is atomic).
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Generic, TypeVar, cast

_T = TypeVar("_T")

#: As `concurrent.futures` has them.
_PENDING, _FINISHED = "PENDING", "FINISHED"
#: In the place of a Condition: the Future has its outcome, and nobody waited for it.
_ALONE = object()
#: The entries for the Condition: of one that was asked for before the outcome was there, and of one afterwards.
_LOCK, _LATE = "_lock", "_late_lock"


class LazyFuture(Future[_T], Generic[_T]):
    """See the module. `finish` is its `set_result` and `set_exception`."""

    # What `Future.__init__` sets. The lists come with the Condition, under which alone they are changed.
    _state = _PENDING
    _result: _T | None = None
    _exception: BaseException | None = None
    _waiters: Any = ()
    _done_callbacks: Any = ()

    def __init__(self) -> None:
        pass  # without Future's own, which makes the Condition

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        mine = self.__dict__
        lock = mine.get(_LOCK)
        if lock is None or lock is _ALONE:
            mine.setdefault("_waiters", [])
            mine.setdefault("_done_callbacks", [])
            lock = mine.setdefault(_LOCK, threading.Condition())
        if lock is _ALONE:
            # Who finishes it may be about to say so, or was interrupted by Ctrl-C just before.
            self._state = _FINISHED
            lock = mine.setdefault(_LATE, threading.Condition())
        return cast(threading.Condition, lock)

    def finish(self, result: _T | None, error: BaseException | None = None) -> None:
        """Give it its outcome. For one thread, once; a Future that was cancelled raises InvalidStateError."""
        mine = self.__dict__
        if _LOCK not in mine:
            mine["_result"], mine["_exception"] = result, error
            if mine.setdefault(_LOCK, _ALONE) is _ALONE:
                self._state = _FINISHED
                return
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(cast(_T, result))

    def done(self) -> bool:
        return self._state == _FINISHED or super().done()

    def result(self, timeout: float | None = None) -> _T:
        if self._state == _FINISHED and self._exception is None:
            return cast(_T, self._result)
        return super().result(timeout)
