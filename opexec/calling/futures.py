"""One submitted call and its Future: from finding a worker to the result, over a restart or a repetition if need be, until it is cancelled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED
from typing import TYPE_CHECKING, Any

from ..connection.calls import Again, Call
from ..supervision.admission import Seat
from ..supervision.link import Link
from .array_kinds import ArrayKind
from .arrays import snapshot
from .lazy_future import LazyFuture

if TYPE_CHECKING:
    from ..isolated import IsolatedModel

#: What becomes of a submission.
_ENDED, _CANCELLED = object(), object()


class SubmittedFuture(LazyFuture[dict[str, Any]]):
    """A Future that can be cancelled until the answer is there. The worker may run the call all the same; nobody gets its answer then.

    A thread that waits for its result reads the answer itself. With a callback it is completed by another thread, which runs that.
    """

    def __init__(self, submission: Submission) -> None:
        self._submission: Submission | None = submission

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        return super().result(self._attended(timeout) if self._submission is not None else timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self._attended(timeout))

    def add_done_callback(self, fn: Callable[[Future[dict[str, Any]]], object]) -> None:
        submission = self._submission
        if submission is not None:
            submission.watch()
        super().add_done_callback(fn)

    def cancel(self) -> bool:
        submission = self._submission
        if submission is None:
            return self.cancelled()
        try:
            if not submission.cancel():
                return self.cancelled()
            end_cancelled(self)
        except BaseException:  # Ctrl-C: what has begun to be cancelled must not be waited for without end
            if submission.cancelled:
                submission.cancel()
                end_cancelled(self)
            raise
        self._submission = None
        return True

    def _attended(self, timeout: float | None) -> float | None:
        """Wait for the end, as far as this thread can see to it; returns what is left of `timeout`."""
        submission = self._submission
        if submission is None:
            return timeout
        if timeout is None:
            submission.attend(None)
            return None
        until = time.monotonic() + timeout
        submission.attend(until)
        return max(until - time.monotonic(), 0)


def end_cancelled(future: Future[Any]) -> None:
    """Have it end as cancelled, and whoever waits told. Idempotent, in whichever threads."""
    Future.cancel(future)
    with future._condition:
        if future._state == CANCELLED:  # else that was done before
            future.set_running_or_notify_cancel()


class Submission:
    """See the module. `deadline` is by `time.monotonic`."""

    #: Its end is to be told as soon as it comes, by the collector's thread.
    watched = False
    #: A thread is sending the call that is under way: it may look as if it were sent, and then find the ring full.
    _being_sent = False
    #: The inputs are a copy.
    _kept = False
    #: The call that is under way.
    _under_way: tuple[Link, Call, ArrayKind | None] | None = None
    #: Its worker, if that was claimed for it, and the seat: whoever takes them away from here gives them back.
    _claimed: list[Link] | None = None
    _seat: list[Seat] | None = None

    def __init__(
        self,
        model: IsolatedModel,
        names: tuple[str, ...],
        values: list[Any],
        outputs: Sequence[str] | None,
        deadline: float | None,
        retries: int,
    ) -> None:
        self.future = SubmittedFuture(self)
        self._model = model
        self._names = names
        #: None once the call is sent, where no copy is kept: the caller may have changed them.
        self._values: list[Any] | None = values
        self._outputs = outputs
        self._deadline = deadline
        self._retries = retries
        #: What one thread decides for all, the first to say so (`dict.setdefault` is atomic): under ``"fate"`` what has become of it, under
        #: ``"attendant"`` who waits for the call that is under way, and under a call who sees to its end.
        self._first: dict[object, object] = {}

    def start(self) -> None:
        """Send the call, or have it sent once a worker is there. As ever, the inputs are the caller's again when this returns."""
        admission = self._model.admission
        if admission is not None:
            self.watched = True  # others may wait for the seat
            self._seat = [admission.enter(self._deadline)]
        try:
            if self._retries:
                self._keep()
            self._go_on()
        except BaseException:
            self._leave()
            raise

    def watch(self) -> None:
        """Have its end told as soon as it comes, by the collector's thread."""
        self.watched = True
        under_way = self._under_way
        if under_way is None:  # it is still to be sent, or has ended
            return
        link, call, _ = under_way
        if call.id and not self._being_sent:  # who sends it comes back to it
            link.collector.watch(call)

    def attend(self, until: float | None) -> None:
        """Wait for its end until `until` (by `time.monotonic`), and complete it; back before where that is up to another thread."""
        me = object()
        first = self._first
        while "fate" not in first:
            under_way = self._under_way
            if under_way is None:  # it waits for a worker
                self._refuse_copies()
                return
            link, call, _ = under_way
            if link.connection.dead is not None:
                self._refuse_copies()
            if self.watched or self._being_sent or not call.id or first.setdefault("attendant", me) is not me:
                link.collector.see_to()  # in a callback of another one, which keeps the collector's thread
                return
            try:
                if call.answer is None and not link.connection.attend(call, until):
                    return
                if self.watched:
                    return
                self._complete(call)
                link.collector.forget(call)
            except MemoryError as error:
                if not link.connection.give_up(call, error):
                    raise
            finally:
                first.pop("attendant", None)

    def cancel(self) -> bool:
        """Whether the call will never have a result; False if it has one, or an error. Idempotent, also where it was interrupted."""
        if self._first.setdefault("fate", _CANCELLED) is not _CANCELLED:
            return False
        self._withdraw()
        self._leave()
        return True

    @property
    def cancelled(self) -> bool:
        return self._first.get("fate") is _CANCELLED

    def _refuse_copies(self) -> None:
        """In a forked copy nobody will ever complete it."""
        if self._model.replicas.is_copy:
            raise self._model.replicas.not_here()

    def _go_on(self) -> None:
        replicas = self._model.replicas
        link = self._model._link
        if link is not None and "fate" not in self._first:  # there is one worker, and nothing to choose
            try:
                self._send(link)
                return
            except Again:  # it died before the call was sent
                pass
        while "fate" not in self._first:
            link = replicas.try_claim()
            if link is None:
                startup = replicas.startup
                if not startup.under_way:
                    startup.wait()  # raises why there is no worker
                    continue
                self._keep()
                startup.when_done(self._woken, self._deadline)
                return
            self._claimed = [link]
            try:
                self._send(link)
                return
            except Again:
                self._unclaim()
            except BaseException:
                self._unclaim()
                raise

    def _keep(self) -> None:
        if not self._kept:
            self._values = [
                snapshot(value, name) for name, value in zip(self._names, self._values or [], strict=True)
            ]
            self._kept = True

    def _woken(self, error: BaseException | None) -> None:
        try:
            if error is not None:
                raise error
            self._go_on()
        except BaseException as error:
            self._fail(error)

    def _send(self, link: Link) -> None:
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)
        collector = link.collector
        assert self._values is not None
        values = self._values
        call, kind = self._model._prepare(link, self._names, values, 0, left)
        try:
            self._under_way = link, call, kind
            collector.expect(call, self._complete, self.watched)
            # Before it is sent: from then on another thread may complete it, and look whether it can be made again.
            if not self._retries and not self._kept:
                self._values = None
            self._being_sent = True
            try:
                self._model._send(link, call)
            finally:
                self._being_sent = False
        except BaseException:
            collector.forget(call)
            self._under_way = None
            self._values = values
            raise
        try:
            collector.see_to()
        except BaseException:  # no thread is to be had, say: nobody would complete it
            self._withdraw()
            raise
        if self._first.get("fate") is _CANCELLED:  # while it was being sent
            self._withdraw()
        elif self.watched and call.finish is None:  # in this very moment
            collector.watch(call)

    def _withdraw(self) -> None:
        """Stop waiting for the call that is under way, if there is one. Idempotent, also where it was interrupted."""
        under_way = self._under_way
        if under_way is None:
            return
        link, call, _ = under_way
        if self._being_sent or not call.id:
            return  # who sends it comes here afterwards
        if self._first.setdefault(call, _CANCELLED) is not _CANCELLED:
            return  # it has just ended
        link.connection.dismiss(call)
        link.collector.forget(call)
        self._under_way = None
        self._unclaim()

    def _complete(self, call: Call) -> None:
        """`call` has its answer, or a failure. Any number of threads may come with that; one goes on."""
        under_way = self._under_way
        if under_way is None or under_way[1] is not call:  # it was withdrawn, or has been made again since
            return
        link, _, kind = under_way
        results = None
        me = object()
        try:
            if self._first.setdefault(call, me) is not me:
                return
            again = None if call.failure is None else self._again(link, call, call.failure)
            self._under_way = None
            self._unclaim()
            if again is not None:
                self._retries -= again.sent
                self._go_on()
            elif self._first.setdefault("fate", _ENDED) is not _ENDED:  # cancelled in this very moment
                link.connection.calls.abandon(call)
            elif call.failure is not None:
                self._end(call.failure, None)
            else:
                results = self._answered(link, call, kind)
                self._end(None, results)
        except BaseException as error:
            if self._first.get(call) is not me:
                raise
            if not self.future.done():
                if results is None:  # the worker may have its answer back
                    link.connection.calls.abandon(call)
                self._withdraw()
                self._fail(error)
            if not isinstance(error, Exception):  # Ctrl-C, in a thread that waits for it
                raise

    def _again(self, link: Link, call: Call, failure: BaseException) -> Again | None:
        """What the failure of a call means for its worker; not None if it is to be made again."""
        try:
            self._model._recover(link, call, failure, self._retries)
        except Again as again:
            if self._values is not None:
                return again
        return None

    def _answered(self, link: Link, call: Call, kind: ArrayKind | None) -> dict[str, Any]:
        """What the Future gives."""
        return self._model._results(link, call, kind, self._outputs)

    def _fail(self, error: BaseException) -> None:
        if self._first.setdefault("fate", _ENDED) is _ENDED:
            self._end(error, None)

    def _end(self, error: BaseException | None, results: dict[str, Any] | None) -> None:
        self._leave()
        future = self.future
        future._submission = None
        if error is not None:
            self._model.failures.add(error)
        future.finish(results, error)

    def _unclaim(self) -> None:
        if self._claimed and not self._model.replicas.is_copy:  # which another thread's lock may keep waiting
            with contextlib.suppress(IndexError):  # another thread was quicker
                self._model.replicas.unclaim(self._claimed.pop())

    def _leave(self) -> None:
        if self._seat:
            with contextlib.suppress(IndexError):
                self._seat.pop().leave()
