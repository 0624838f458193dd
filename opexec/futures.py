"""One submitted call and its Future: from finding a worker to the result, over a restart or a repetition if need be, until it is cancelled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from .array_kinds import ArrayKind
from .arrays import snapshot
from .calls import Again, Call
from .lazy_future import LazyFuture
from .supervision.admission import Seat
from .supervision.link import Link

if TYPE_CHECKING:
    from .isolated import IsolatedModel

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
        if submission is None or not submission.cancel():
            return self.cancelled()
        self._submission = None
        super().cancel()
        self.set_running_or_notify_cancel()
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


class Submission:
    """See the module. `deadline` is by `time.monotonic`."""

    #: Its end is to be told as soon as it comes, by the collector's thread.
    watched = False
    #: A thread is sending the call that is under way: it may look as if it were sent, and then find the ring full.
    _being_sent = False
    #: The inputs are a copy.
    _kept = False

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
        #: What has become of it; the first to say so decides (`dict.setdefault` is atomic).
        self._fate: dict[int, object] = {}
        self._seat: list[Seat] = []
        #: The thread that waits for the call that is under way: one at a time.
        self._attendant: dict[int, object] = {}
        #: The call that is under way, and whether its worker was claimed for it; for one who takes it away from here to end it.
        self._under_way: list[tuple[Link, Call, ArrayKind | None, bool]] = []

    def start(self) -> None:
        """Send the call, or have it sent once a worker is there. As ever, the inputs are the caller's again when this returns."""
        admission = self._model.admission
        if admission is not None:
            self.watched = True  # others may wait for the seat
            self._seat.append(admission.enter(self._deadline))
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
        try:
            link, call, _, _ = self._under_way[0]
        except IndexError:  # it is still to be sent, or has ended
            return
        if call.id and not self._being_sent:  # who sends it comes back to it
            link.collector.watch(call)

    def attend(self, until: float | None) -> None:
        """Wait for its end until `until` (by `time.monotonic`), and complete it; back before where that is up to another thread."""
        me = object()
        while 0 not in self._fate:
            try:
                link, call, _, _ = self._under_way[0]
            except IndexError:  # it waits for a worker
                return
            if link.connection.dead is not None and self._model.replicas.is_copy:
                raise self._model.replicas.not_here()
            if self.watched or self._being_sent or not call.id or self._attendant.setdefault(0, me) is not me:
                link.collector.see_to()  # in a callback of another one, which keeps the collector's thread
                return
            try:
                if call.answer is None and not link.connection.attend(call, until):
                    return
                if self.watched:
                    return
                self._complete()
                link.collector.forget(call)
            except MemoryError as error:
                if not link.connection.give_up(call, error):
                    raise
            except BaseException as error:  # Ctrl-C: what has begun to end must not be waited for without end
                if self._fate.get(0) is _ENDED and not self.future.done():
                    self._end(error, None)
                raise
            finally:
                self._attendant.pop(0, None)

    def cancel(self) -> bool:
        """Whether the call will never have a result; False if it has one, or an error."""
        if 0 in self._fate or self._fate.setdefault(0, _CANCELLED) is not _CANCELLED:
            return False
        self._withdraw()
        self._leave()
        return True

    def _go_on(self) -> None:
        replicas = self._model.replicas
        link = self._model._link
        if link is not None and 0 not in self._fate:  # there is one worker, and nothing to choose
            try:
                self._send(link, claimed=False)
                return
            except Again:  # it died before the call was sent
                pass
        while 0 not in self._fate:
            link = replicas.try_claim()
            if link is None:
                startup = replicas.startup
                if not startup.under_way:
                    startup.wait()  # raises why there is no worker
                    continue
                self._keep()
                startup.when_done(self._woken, self._deadline)
                return
            try:
                self._send(link, claimed=True)
                return
            except Again:
                continue

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

    def _send(self, link: Link, claimed: bool) -> None:
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)
        collector = link.collector
        try:
            assert self._values is not None
            values = self._values
            call, kind = self._model._prepare(link, self._names, values, 0, left)
            try:
                self._under_way.append((link, call, kind, claimed))
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
                self._under_way.clear()
                self._values = values
                raise
        except BaseException:
            if claimed:
                self._model.replicas.unclaim(link)
            raise
        try:
            collector.see_to()
        except BaseException:  # no thread is to be had, say: nobody would complete it
            self._withdraw()
            raise
        if self._fate.get(0) is _CANCELLED:  # while it was being sent
            self._withdraw()
        elif self.watched and call.finish is None:  # in this very moment
            collector.watch(call)

    def _withdraw(self) -> None:
        """Stop waiting for the call that is under way, if there is one."""
        try:
            link, call, _, claimed = self._under_way[0]
            if self._being_sent or not call.id:
                return  # who sends it comes here afterwards
            self._under_way.pop()
        except IndexError:
            return
        link.connection.dismiss(call)
        link.collector.forget(call)
        if claimed:
            self._model.replicas.unclaim(link)

    def _complete(self) -> None:
        """The call has its answer, or a failure."""
        try:
            link, call, kind, claimed = self._under_way[0]
        except IndexError:
            return
        again = None
        if call.failure is not None:
            try:
                self._model._recover(link, call, call.failure, self._retries)
            except Again as one:
                if self._values is not None:
                    again = one
        if again is not None and again.sent:
            self._retries -= 1
        if again is None and self._fate.setdefault(0, _ENDED) is not _ENDED:
            return
        try:
            self._under_way.pop()
        except IndexError:  # cancelled
            return
        if claimed:
            self._model.replicas.unclaim(link)
        if again is not None:
            self._woken(None)
            return
        try:
            if call.failure is not None:
                raise call.failure
            results = self._answered(link, call, kind)
        except BaseException as error:
            self._end(error, None)
        else:
            self._end(None, results)

    def _answered(self, link: Link, call: Call, kind: ArrayKind | None) -> dict[str, Any]:
        """What the Future gives."""
        return self._model._results(link, call, kind, self._outputs)

    def _fail(self, error: BaseException) -> None:
        if self._fate.setdefault(0, _ENDED) is _ENDED:
            self._end(error, None)

    def _end(self, error: BaseException | None, results: dict[str, Any] | None) -> None:
        self._leave()
        future = self.future
        future._submission = None
        if error is not None:
            self._model.failures.add(error)
        future.finish(results, error)

    def _leave(self) -> None:
        try:
            seat = self._seat.pop()
        except IndexError:
            return
        seat.leave()
