"""One thread a process that waits for what nobody else waits for: the end of idle workers, and times at which something is due.

It starts when there is something to wait for, sleeps in one `poll` on the workers' pidfds until the next time is due, and uses no
processor time meanwhile. What it is told to do must be short: it starts threads for the rest.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import select
import threading
import time
import traceback
from collections.abc import Callable

from ..processes import leaving

Action = Callable[[], object]

#: `poll` takes no more than 2**31 ms at once, and infinity not at all.
_LONGEST_SLEEP_S = 3600.0
#: When there is no memory, it waits this long, in seconds, before it tries again.
_BREATHE_S = 0.05
#: Where no thread is to be had, one is asked for again after so long, in seconds.
_TRY_AGAIN_S = 0.1


class Watch:
    """Something that the thread waits for, until it has happened or `cancel` is called."""

    def __init__(self, action: Action) -> None:
        self._action: Action | None = action
        self._fd = -1

    def cancel(self) -> None:
        """Forget it. Idempotent; may run in any thread, in a garbage collection too."""
        with _watcher.lock:
            self._action = None
            fd, self._fd = self._fd, -1
            if fd >= 0:
                _watcher.watched.pop(fd, None)
                os.close(fd)
                _watcher.stir()

    def _happen(self) -> None:
        leaving.hold()
        action = self._action
        self.cancel()
        if action is not None:
            try:
                action()
            except BaseException:  # the others must still be waited for
                traceback.print_exc()


def when_dead(pidfd: int, action: Action) -> Watch:
    """Have `action` run once the process of `pidfd` has ended. The descriptor is copied: whoever has it may close it."""
    watch = Watch(action)
    with _watcher.lock:
        watch._fd = os.dup(pidfd)
        _watcher.watched[watch._fd] = watch
        try:
            _watcher.stir()
        except BaseException:
            del _watcher.watched[watch._fd]
            os.close(watch._fd)
            raise
    return watch


def at(when: float, action: Action) -> Watch:
    """Have `action` run at `when`, by `time.monotonic`."""
    watch = Watch(action)
    with _watcher.lock:
        heapq.heappush(_watcher.due, (when, next(_order), watch))
        if _watcher.due[0][2] is watch or not _watcher.awake:
            try:
                _watcher.stir()
            except BaseException:
                watch._action = None
                raise
    return watch


def aside(name: str, do: Callable[..., object], *arguments: object) -> None:
    """Have a thread of that name do it; where there can be no more threads, a little later."""
    try:
        threading.Thread(target=do, args=arguments, name=name, daemon=True).start()
    except (RuntimeError, MemoryError):
        at(time.monotonic() + _TRY_AGAIN_S, lambda: aside(name, do, *arguments))


_order = itertools.count()


class _Watcher:
    def __init__(self) -> None:
        # A garbage collection while it is held may cancel a watch.
        self.lock = threading.RLock()
        self.watched: dict[int, Watch] = {}
        self.due: list[tuple[float, int, Watch]] = []
        self._bell = -1
        self._thread: threading.Thread | None = None

    @property
    def awake(self) -> bool:
        return self._thread is not None

    def stir(self) -> None:
        """Have the thread look at what it waits for, under the lock. Raises what starting it raises; then it is started the next time."""
        if self._thread is None:
            if not self.watched and not self.due:
                return
            thread = threading.Thread(target=self._run, name="opexec-watcher", daemon=True)
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                thread.start()
            except BaseException:
                os.close(self._bell)
                self._bell = -1
                raise
            self._thread = thread
        elif threading.current_thread() is not self._thread:
            os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except MemoryError:  # what it did not come to is there for the next turn
                time.sleep(_BREATHE_S)

    def _turn(self) -> None:
        with self.lock:
            poll = select.poll()
            poll.register(self._bell, select.POLLIN)
            for fd in list(self.watched):
                poll.register(fd, select.POLLIN)
            left = self._left_ms()
        ready = [fd for fd, _ in poll.poll(left)]
        if self._bell in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._bell)
        for fd in ready:
            watch = self.watched.get(fd)
            # Its number may have been given to another process's descriptor since.
            if watch is not None and _has_ended(fd):
                watch._happen()
        now = time.monotonic()
        while True:
            due = self._first_due(now)
            if due is None:
                return
            due._happen()

    def _left_ms(self) -> int | None:
        self._drop_done()
        if not self.due:
            return None
        return max(math.ceil(min(self.due[0][0] - time.monotonic(), _LONGEST_SLEEP_S) * 1000), 0)

    def _first_due(self, now: float) -> Watch | None:
        """It stays where it is until it has happened."""
        with self.lock:
            self._drop_done()
            if self.due and self.due[0][0] <= now:
                return self.due[0][2]
            return None

    def _drop_done(self) -> None:
        while self.due and self.due[0][2]._action is None:
            heapq.heappop(self.due)

    def forget(self) -> None:
        """In a forked child: what is watched is the parent's."""
        for fd in [*self.watched, self._bell]:
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        for watch in self.watched.values():
            watch._fd = -1


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))


_watcher = _Watcher()


def _after_fork_in_child() -> None:
    global _watcher
    former, _watcher = _watcher, _Watcher()
    former.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
