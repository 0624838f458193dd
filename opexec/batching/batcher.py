"""Which call goes when: the calls that wait, and the batches that are under way. `sending` says what becomes of these.

Whoever brings a call, or takes in an answer, sends what is due. Only where time must pass is a thread started for it; and for the main
thread, which Ctrl-C may interrupt anywhere, another one does what other calls depend on.

A batch is sent
- when it is full, at once, also to workers that are busy: they find it when they are done;
- when a worker has nothing to do, at once, unless there were more calls under way a moment ago than there are now: their callers may be about
  to call again, and are waited for, until `max_delay` after the last answer. How many there were is what `_crowd` says: the most since a
  batch was last sent.

While all workers are busy calls wait, and batches grow.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet  # the built-in one from Python 3.11 on
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..connection.timing import now
from ..errors import CallTimeout, ModelClosed
from ..model import BatchStats
from ..supervision import watcher
from .alarm import Alarm
from .alone import Alone
from .batch import Batch, JoinedCall
from .policy import BatchPolicy
from .room import Rooms
from .seam import Seam, Tensors
from .sending import send

if TYPE_CHECKING:
    from ..isolated import IsolatedModel

_Result = TypeVar("_Result")


class Batcher:
    """See the module. `workers`: how many batches can run at the same time; `retries`: how often one that met WorkerDied is sent again."""

    def __init__(
        self, model: IsolatedModel, seam: Seam, policy: BatchPolicy, workers: int, retries: int
    ) -> None:
        self.model = model
        self.seam = seam
        self.retries = retries
        self._policy = policy
        self._workers = workers
        self._rooms = Rooms(seam.inputs, policy.max_size, workers + 2, model._empty)
        #: Batches that take calls, by the key of their tensors, the oldest first; and those that take none and wait for calls to be copied.
        self._open: dict[tuple[Any, ...], Batch] = {}
        self._sealed: list[Batch] = []
        #: Batches, and calls that went alone, that are sent or about to be.
        self._sent = 0
        #: Calls that wait or are sent, and the most of them since a batch was last sent.
        self._under_way = 0
        self._crowd = 0
        #: When one of them ended last, by `time.monotonic`.
        self._answered = -math.inf
        self._hurried = False
        self._closed = False
        #: Calls for whose deadline no thread waits.
        self._timed: set[JoinedCall] = set()
        self._delay_alarm = Alarm(self)
        self._deadline_alarm = Alarm(self)
        self._sizes: Counter[int] = Counter()
        self._calls = 0
        self._copied = 0
        #: Of all that is here, and of the calls and their batches. A garbage collection inside may end a call's Future.
        self.lock = threading.RLock()
        self._helper: ThreadPoolExecutor | None = None

    # Coming and going

    def join(self, tensors: Tensors, call: JoinedCall, timed: bool = False) -> Alone | None:
        """`join_here`, in whatever thread, the main one included."""
        try:
            alone = self._go_alone(tensors, call)
            if alone is None:
                self._safely(self._enter, tensors, call, timed)
        except BaseException:
            self.withdraw(call, cancelled=True)
            raise
        return alone

    def join_here(
        self, tensors: Tensors, call: JoinedCall, timed: bool = False, join: bool = False
    ) -> Alone | None:
        """Have `call` answered in a batch; its inputs are the caller's again then. None; or, if it is to be made alone, at once, by the caller,
        what counts it meanwhile. With `join` only a call that is too large is. In a thread that nothing interrupts.

        `timed`: no thread waits for it, and it is to fail at its deadline. Raises OutOfSharedMemory, ModelClosed.
        """
        alone = self._go_alone(tensors, call, join)
        if alone is None:
            self._enter(tensors, call, timed)
        return alone

    def _go_alone(self, tensors: Tensors, call: JoinedCall, join: bool = False) -> Alone | None:
        with self.lock:
            if self._closed:
                raise self._is_closed()
            if call.ended:  # cancelled already
                return None
            wait = join or self._open or not self._idle or self._more_expected(self._under_way + 1)
            if wait and tensors.rows <= self._policy.max_size:
                return None
            call.ended = True
            self._crowd = self._under_way + 1
            self._count(tensors.rows, 1)
            return Alone(self)

    def _enter(self, tensors: Tensors, call: JoinedCall, timed: bool) -> None:
        batch = None
        try:
            with self.lock:
                if self._closed:
                    raise self._is_closed()
                if call.ended:
                    return
                batch = self._seat(call, tensors)
                call.since = call.since or now()
                self._under_way += 1
                self._crowd = max(self._crowd, self._under_way)
            copied = batch.room.fill(tensors, call.start)
            if len(batch.room.arrays) < len(tensors.names):
                call.texts = {
                    name: np.array(array, object)
                    for name, array in zip(tensors.names, tensors.arrays, strict=True)
                    if name not in batch.room.arrays
                }
            with self.lock:
                self._copied += copied
                if timed and call.deadline is not None and not call.ended:
                    self._timed.add(call)
                    self._deadline_alarm.ring_at(call.deadline)
        except BaseException:
            self._withdraw(call, cancelled=True)
            raise
        finally:
            if batch is not None:
                with self.lock:
                    batch.copying -= 1
                    due = self._take_due()
                self._send_all(due)

    def count(self, alone: Alone) -> None:
        """A call that goes alone begins."""
        with self.lock:
            self._sent += 1
            self._under_way += 1
            alone.counted = True

    def uncount(self, alone: Alone) -> bool:
        """It has ended; False if that was told before."""
        ended = time.monotonic()
        with self.lock:
            if not alone.counted:
                return False
            alone.counted = False
            self._sent -= 1
            self._under_way -= 1
            self._answered = ended
            return True

    def send_due(self) -> None:
        """Send the batches that are due."""
        if self._open or self._sealed:
            self._safely(self._send_due)

    def send_due_soon(self) -> None:
        """Have another thread do so."""
        with self.lock:
            if self._open or self._sealed:
                self._delay_alarm.ring_at(time.monotonic())

    def _send_due(self) -> None:
        with self.lock:
            due = self._take_due()
        self._send_all(due)

    def withdraw(self, call: JoinedCall, cancelled: bool) -> bool:
        """Nobody waits for `call` any more: take it out of its batch. False if it has its outcome."""
        return self._safely(self._withdraw, call, cancelled)

    def _withdraw(self, call: JoinedCall, cancelled: bool) -> bool:
        joint = None
        with self.lock:
            if call.ended:
                return False
            call.ended = True
            call.withdrawn = cancelled
            self._timed.discard(call)
            batch, call.batch = call.batch, None
            if batch is not None:
                self._under_way -= 1
                batch.cancelled |= cancelled
                if batch.empty:
                    if self._open.get(batch.key) is batch and not batch.copying:
                        del self._open[batch.key]
                        self._rooms.give(batch.room)
                    elif batch.cancelled:
                        # Where all deadlines have passed the joint call is past its own, and the worker's time of grace begins.
                        joint = batch.joint
        if joint is not None:
            joint.give_up()
        return True

    def wait(self, call: JoinedCall) -> Any:
        """The result of `call`. Raises its error; CallTimeout when its deadline passes first."""
        left = None
        if call.deadline is not None:
            left = min(max(call.deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
        try:
            try:
                error = call.exception(left)
            except NotYet:
                if self.withdraw(call, cancelled=False):
                    raise self._too_slow(call) from None
                error = call.exception()
        except BaseException:
            self.withdraw(call, cancelled=True)
            raise
        if error is not None:
            raise error
        return call.result()

    def hurry(self) -> None:
        """Wait for no more calls: none will come."""
        self._hurried = True
        self.send_due()

    def close(self) -> None:
        """Take no more calls; those that wait fail with ModelClosed."""
        self._safely(self._close)

    def _close(self) -> None:
        with self.lock:
            self._closed = True
            waiting = [call for batch in self._open.values() for call in batch.calls]
            self._open.clear()
            ended = self.claim(waiting)
            self._rooms.clear()
        for call in ended:
            call.fail(self._is_closed())

    @property
    def under_way(self) -> int:
        """How many calls wait or are sent."""
        return self._under_way

    def stats(self) -> tuple[BatchStats, int]:
        """The batches, and how many bytes were copied into rooms."""
        with self.lock:
            sizes = dict(sorted(self._sizes.items()))
            return BatchStats(self._calls, sizes, self._policy.max_size), self._copied

    # What is due

    @property
    def _idle(self) -> bool:
        return self._sent < self._workers

    def _more_expected(self, under_way: int) -> bool:
        lately = time.monotonic() < self._answered + self._policy.max_delay
        return lately and under_way < self._crowd and not self._hurried

    def _seat(self, call: JoinedCall, tensors: Tensors) -> Batch:
        """Give the call its place in a batch, where it is being copied to from now on."""
        batch = self._open.get(tensors.key)
        if batch is not None and batch.rows + tensors.rows > batch.room.capacity:
            self._rooms.grow(batch.room)
            self._seal(batch)
            batch = None
        if batch is None:
            batch = self._open[tensors.key] = Batch(tensors, self._rooms.take(tensors))
        batch.add(call, tensors)
        batch.copying += 1
        if batch.rows == batch.room.capacity:
            self._rooms.grow(batch.room)
            self._seal(batch)
        return batch

    def _seal(self, batch: Batch) -> None:
        """It is sent, as soon as all its calls are copied."""
        del self._open[batch.key]
        self._sealed.append(batch)
        self._sent += 1
        self._crowd = self._under_way

    def _count(self, rows: int, calls: int) -> None:
        self._sizes[rows] += 1
        self._calls += calls

    def _take_due(self) -> list[Batch]:
        """The batches that are to be sent now. Has a look taken later, where time must pass first."""
        while self._open and self._idle:
            if self._more_expected(self._under_way):
                self._delay_alarm.ring_at(self._answered + self._policy.max_delay)
                break
            self._seal(next(iter(self._open.values())))
        due = [batch for batch in self._sealed if not batch.copying]
        if due:
            self._sealed = [batch for batch in self._sealed if batch.copying]
        return due

    def glance(self) -> None:
        """Time has passed: have done what is due now. In the watcher's thread, which is not to be kept."""
        present = time.monotonic()
        with self.lock:
            late = [call for call in self._timed if call.deadline is not None and call.deadline <= present]
            due = self._take_due()
            if not late:
                self._set_deadline_alarm()
        if late or due:
            watcher.aside(f"opexec-batching-{self.model.name}", self._catch_up, late, due)

    def _catch_up(self, late: list[JoinedCall], due: list[Batch]) -> None:
        self._send_all(due)
        for call in late:
            if self.withdraw(call, cancelled=False):
                call.fail(self._too_slow(call))
        with self.lock:
            self._set_deadline_alarm()

    def _set_deadline_alarm(self) -> None:
        if self._timed:
            self._deadline_alarm.ring_at(min(call.deadline or 0.0 for call in self._timed))

    # Batches

    def _send_all(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            with self.lock:
                self._copied += batch.close_gaps()
                calls = list(batch.calls)
                if calls:
                    self._count(batch.rows, len(calls))
            send(self, batch, calls)

    def finish(self, batch: Batch, calls: list[JoinedCall], reusable: bool) -> list[JoinedCall]:
        """A batch has ended: the next one may go. Returns those of its calls that are now to be given their outcome."""
        with self.lock:
            batch.joint = None
            if reusable and not self._closed:
                self._rooms.give(batch.room)
            ended = self.claim(calls)
            self._sent -= 1
            self._answered = time.monotonic()
            due = self._take_due()
        self._send_all(due)
        return ended

    def claim(self, calls: list[JoinedCall]) -> list[JoinedCall]:
        """Under the lock: those that have no outcome yet. They count as ended now; whoever asks for this gives them theirs."""
        ended = [call for call in calls if not call.ended]
        for call in ended:
            call.ended = True
            call.batch = None  # whoever keeps one of the calls must not keep the others
            self._timed.discard(call)
        self._under_way -= len(ended)
        return ended

    def _safely(self, do: Callable[..., _Result], *arguments: Any) -> _Result:
        """Do it where Ctrl-C cannot come in between, and wait for that."""
        if threading.current_thread() is not threading.main_thread():
            return do(*arguments)
        try:
            done = self._helped().submit(do, *arguments)
        except RuntimeError:  # there can be no more threads, or the interpreter is exiting
            return do(*arguments)
        return done.result()

    def _helped(self) -> ThreadPoolExecutor:
        """The helper, with its thread. Raises RuntimeError where there can be none: nothing has been given to it then."""
        with self.lock:
            if self._helper is None:
                helper = ThreadPoolExecutor(1, f"opexec-batching-{self.model.name}")
                helper.submit(int)
                self._helper = helper
            return self._helper

    def _too_slow(self, call: JoinedCall) -> CallTimeout:
        return CallTimeout(
            f"model {self.model.name!r} did not answer in time: the call was "
            + ("sent, with others" if call.sent else "waiting to be sent with others")
        )

    def _is_closed(self) -> ModelClosed:
        return ModelClosed(f"model {self.model.name!r} is closed; load it again to call it")
