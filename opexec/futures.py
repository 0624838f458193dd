"""One submitted call and its Future: from finding a worker to the result, over a restart or a repetition if need be, until it is cancelled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from .array_kinds import ArrayKind
from .arrays import snapshot
from .calls import Again, Call
from .supervision.admission import Seat
from .supervision.link import Link

if TYPE_CHECKING:
    from .isolated import IsolatedModel

_ENDED, _CANCELLED = object(), object()


class SubmittedFuture(Future[dict[str, Any]]):
    """A Future that can be cancelled until the answer is there. The worker may run the call all the same; nobody gets its answer then."""

    def __init__(self, submission: Submission) -> None:
        super().__init__()
        self._submission: Submission | None = submission

    def cancel(self) -> bool:
        submission = self._submission
        if submission is None or not submission.cancel():
            return self.cancelled()
        self._submission = None
        super().cancel()
        self.set_running_or_notify_cancel()
        return True


class Submission:
    """See the module. `deadline` is by `time.monotonic`."""

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
        self._kept = False
        #: What has become of it; the first to say so decides (`dict.setdefault` is atomic).
        self._fate: dict[int, object] = {}
        self._seat: list[Seat] = []
        #: The call that is under way, for one who takes it away from here to end it.
        self._under_way: list[tuple[Link, Call, ArrayKind | None]] = []

    def start(self) -> None:
        """Send the call, or have it sent once a worker is there. As ever, the inputs are the caller's again when this returns."""
        admission = self._model.admission
        if admission is not None:
            self._seat.append(admission.enter(self._deadline))
        try:
            if self._retries:
                self._keep()
            self._go_on()
        except BaseException:
            self._leave()
            raise

    def cancel(self) -> bool:
        """Whether the call will never have a result; False if it has one, or an error."""
        if 0 in self._fate or self._fate.setdefault(0, _CANCELLED) is not _CANCELLED:
            return False
        self._withdraw()
        self._leave()
        return True

    def _go_on(self) -> None:
        replicas = self._model.replicas
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
                self._send(link)
                return
            except Again:
                continue  # it died before the call was sent

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
        try:
            assert self._values is not None
            values = self._values
            call, kind = self._model._prepare(link, self._names, values, 0, left)
            try:
                self._under_way.append((link, call, kind))
                collector.expect(call, self._complete)
                # Before it is sent: from then on another thread may complete it, and look whether it can be made again.
                if not self._retries and not self._kept:
                    self._values = None
                self._model._send(link, call)
            except BaseException:
                collector.forget(call)
                self._under_way.clear()
                self._values = values
                raise
        except BaseException:
            self._model.replicas.unclaim(link)
            raise
        try:
            collector.wake()
        except BaseException:  # no thread is to be had, say: nobody would complete it
            self._withdraw()
            raise
        if self._fate.get(0) is _CANCELLED:  # while it was being sent
            self._withdraw()

    def _withdraw(self) -> None:
        """Stop waiting for the call that is under way, if there is one."""
        try:
            link, call, _ = self._under_way[0]
            if not call.id:
                return  # who sends it comes here afterwards
            self._under_way.pop()
        except IndexError:
            return
        link.connection.calls.abandon(call)
        link.collector.forget(call)
        self._model.replicas.unclaim(link)

    def _complete(self) -> None:
        """The call has its answer, or a failure."""
        try:
            link, call, kind = self._under_way[0]
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
        future.set_running_or_notify_cancel()
        if error is not None:
            self._model.failures.add(error)
            future.set_exception(error)
        else:
            future.set_result(results or {})

    def _leave(self) -> None:
        try:
            seat = self._seat.pop()
        except IndexError:
            return
        seat.leave()
