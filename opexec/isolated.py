"""A model in a worker process, called through shared memory.

The input arena belongs to the model, not to its worker: an array from `empty` stays good when the worker is replaced. A call whose
signature (names, dtypes, shapes) was seen before repeats neither the check against the spec nor the planning.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from .calling import asynchronous
from .calling.array_kinds import ArrayKind
from .calling.futures import Submission
from .calling.input_memory import InputMemory
from .calling.signature import split
from .calling.steps import CallSteps, deadline_in, time_left
from .connection.calls import Again, Call
from .connection.timing import CallTimes, Sampler, now
from .errors import OpexecError, OutOfSharedMemory
from .ipc import wire
from .ipc.arena import NoRoom
from .loading.launch import Launch
from .loading.request import Specs
from .memory import SharedMemory
from .metrics.errors import ErrorCounts, counted
from .metrics.latency import Latency
from .model import Model, ModelStats, WorkerInfo, subset
from .supervision import swapping
from .supervision.admission import Admission
from .supervision.link import Link
from .supervision.policies import Supervision
from .supervision.replicas import Replicas

if TYPE_CHECKING:
    from .batching.policy import BatchPolicy
    from .sharing.shared import Share


class IsolatedModel(CallSteps):
    """See `Model`.

    With ``background=True`` it is there at once, and its worker comes in a thread: until then there is no link, and the attributes for its
    specs are missing, so that whoever asks for them waits (`__getattr__`).
    """

    def __init__(
        self,
        *,
        name: str,
        platform: str,
        launch: Launch,
        check: bool,
        timeout: float | None,
        wait: str,
        shm_limit: int | None,
        supervision: Supervision | None = None,
        background: bool = False,
    ) -> None:
        self.name = name
        self.platform = platform
        self._check = check
        self._checks_outputs = False
        self._timeout = timeout
        supervision = supervision or Supervision()
        self.retries = supervision.retries
        self._memory = SharedMemory(shm_limit)
        # Weakly: a model that nobody holds any more goes at once, with its memory, and not when cycles are collected.
        model = weakref.proxy(self)
        self._input_memory = InputMemory(self._memory, lambda names, arrays: model._examine(names, arrays))
        self._packer = self._input_memory.packer
        #: The worker of a model that has one, while that can be called; else `replicas` knows whom to call, and when.
        self._link: Link | None = None
        own = weakref.ref(self)
        self.replicas = Replicas(
            name,
            launch,
            supervision,
            self._packer,
            self._memory,
            wait,
            lambda link: _publish(own, link),
            lambda specs: _adopt(own, specs),
        )
        #: The specs stay as they are: another model was swapped in.
        self._specs_fixed = False
        #: The times of some calls.
        self.sampler = Sampler()
        self.latency: Latency = Latency(self.sampler)
        limit = supervision.max_pending
        #: Counts the calls, where their number is limited.
        self.admission = (
            None
            if limit is None
            else Admission(name, limit, supervision.when_full == "wait", self.latency.add_wait)
        )
        self.failures = ErrorCounts()
        #: The names under which other processes find it.
        self.shares: set[Share] = set()
        self._opening = threading.Lock()
        self._opened = False
        self._closed = False
        try:
            self._input_memory.open()
            if background:
                threading.Thread(target=self._load, name=f"opexec-loading-{name}", daemon=True).start()
            else:
                self.replicas.open()
                self._opened = True
        except BaseException as error:
            self._input_memory.close()
            if isinstance(error, NoRoom):
                raise self._cannot_start(error) from error
            raise

    # Loading in the background

    def _load(self) -> None:
        try:
            self.replicas.open()
        except BaseException as error:
            self.replicas.launch.failed(error)
            self.replicas.startup.fail(self._cannot_start(error) if isinstance(error, NoRoom) else error)
        with self._opening:
            self._opened = True
        if self._closed:  # meanwhile, by somebody who leaves the rest to this thread
            self._end()

    def _cannot_start(self, error: NoRoom) -> OutOfSharedMemory:
        return OutOfSharedMemory(f"model {self.name!r} cannot start: {error}")

    @property
    def ready(self) -> bool:
        return self.replicas.ready

    def wait_ready(self, timeout: float | None = None) -> None:
        self.replicas.startup.wait(None if timeout is None else deadline_in(timeout))
        if self._closed:
            raise self._is_closed()

    def __getattr__(self, name: str) -> Any:
        if name in ("inputs", "outputs"):
            self.replicas.startup.wait()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    # Calls
    #
    # Each way to call has a short way, to the one worker there is, and a long one: where there are several, or none that can be called yet,
    # or calls are counted, or the worker has gone before it was sent the call.

    def infer(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        link = self._link
        if link is None:
            return self._infer_anyhow(inputs, outputs, timeout)
        try:
            try:
                names, values = tuple(inputs), [*inputs.values()]
            except (AttributeError, TypeError):
                names, values = split(inputs)  # says what is wrong
            call, kind = self._prepare(link, names, values, 0, timeout)
            views = self._run(link, call)
        except Again as again:
            return self._infer_anyhow(inputs, outputs, timeout, again)
        except OpexecError as error:
            self.failures.add(error)
            raise
        results = dict(zip(call.plan.names, views))
        if kind is not None:
            results = {name: kind.from_numpy(view) for name, view in results.items()}
        return results if outputs is None else subset(results, outputs)

    def _infer_anyhow(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None,
        timeout: float | None,
        again: Again | None = None,
    ) -> dict[str, Any]:
        _, call, kind, views = self._run_anyhow(*split(inputs), 0, timeout, again)
        results = dict(zip(call.plan.names, views))
        if kind is not None:
            results = {name: kind.from_numpy(view) for name, view in results.items()}
        return results if outputs is None else subset(results, outputs)

    @counted
    def infer_timed(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> tuple[dict[str, Any], CallTimes]:
        """`infer`, and when each step of this very call happened."""
        began = now()
        deadline = self._due(timeout)
        self._refuse_copies()
        with self.replicas.claimed(deadline) as link:
            try:
                call, kind = self._prepare(link, *split(inputs), 0, time_left(deadline))
            except Again as again:
                raise again.error from None
            call.began, call.timed = began, wire.TIMED
            try:
                views = self._run(link, call, 0)
            except Again as again:
                raise again.error from None
        results = dict(zip(call.plan.names, views))
        if kind is not None:
            results = {name: kind.from_numpy(view) for name, view in results.items()}
        if outputs is not None:
            results = subset(results, outputs)
        assert call.times is not None
        return results, call.times

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        link = self._link
        if link is not None:
            names, values, positional = self._named(args, kwargs)
            try:
                call, kind = self._prepare(link, names, values, positional, None)
                return self._rebuild(link, call, kind, self._run(link, call))
            except Again as one:
                again: Again | None = one
            except OpexecError as error:
                self.failures.add(error)
                raise
        else:
            again = None
            if "inputs" not in self.__dict__:
                self.replicas.startup.wait(self._due(None))
            names, values, positional = self._named(args, kwargs)
        return self._rebuild(*self._run_anyhow(names, values, positional, None, again))

    @counted
    def submit(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> Future[dict[str, Any]]:
        if self._link is None:  # else the connection says so
            self._refuse_copies()
        names, values = split(inputs)
        submission = Submission(self, names, values, outputs, self._due(timeout), self.retries)
        submission.start()
        return submission.future

    @counted
    async def infer_async(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        self._refuse_copies()
        names, values = split(inputs)
        deadline = self._due(timeout)
        seat = None if self.admission is None else await self.admission.enter_async(deadline)
        try:
            return await asynchronous.infer(self, names, values, outputs, deadline)
        finally:
            if seat is not None:
                seat.leave()

    @counted
    def _run_anyhow(
        self,
        names: tuple[str, ...],
        values: list[Any],
        positional: int,
        timeout: float | None,
        again: Again | None,
    ) -> tuple[Link, Call, ArrayKind | None, list[Any]]:
        """Make a call, for which the short way was not open, with whichever worker there is; `again`: what became of it so far."""
        self._refuse_copies()
        deadline = self._due(timeout)
        tries = self.retries
        if again is not None:
            deadline = again.deadline or deadline
            tries -= again.sent
        seat = None if self.admission is None else self.admission.enter(deadline)
        try:
            while True:
                link = self.replicas.claim(deadline)
                try:
                    call, kind = self._prepare(link, names, values, positional, time_left(deadline))
                    return link, call, kind, self._run(link, call, tries)
                except Again as one:
                    tries -= one.sent
                finally:
                    self.replicas.unclaim(link)
        finally:
            if seat is not None:
                seat.leave()

    # Workers

    def restart(self) -> None:
        self._refuse_copies()
        self._wait_until_opened()
        with self.replicas.replacing.turn():
            self.replicas.replacing.restart()

    def swap(self, source: str | os.PathLike[str], *, wait: bool = True, **arguments: Any) -> None:
        self._refuse_copies()
        launch, platform = swapping.launch(self.replicas.launch, source, arguments)
        self._wait_until_opened()
        if "inputs" not in self.__dict__:
            self.replicas.startup.wait()  # raises why it could not be loaded
        contract = self.inputs, self.outputs
        with self.replicas.replacing.turn():
            before, self._specs_fixed = self._specs_fixed, True
            try:
                self.replicas.replacing.swap(launch, lambda specs: swapping.check(contract, specs), wait)
            except BaseException:
                self._specs_fixed = before
                raise
            self.platform = platform

    def share(self, name: str | None = None) -> Share:
        return self.share_as(name)

    def share_as(
        self, name: str | None, shown: Model | None = None, batch: BatchPolicy | None = None
    ) -> Share:
        """`share`, of a model that is what `shown` calls, and whose clients join their calls by `batch`."""
        from .sharing.shared import Share  # only here: most models are never shared

        self._refuse_copies()
        return Share(self, name, shown, batch)

    def _wait_until_opened(self) -> None:
        """For the end, good or bad, of the first loading."""
        while not self._opened and not self._closed:
            self.replicas.startup.wait_for_end()
            if not self._opened:
                time.sleep(0.001)

    def close(self, drain: bool = False, timeout: float | None = None) -> None:
        deadline = None if timeout is None else deadline_in(timeout)
        self._closed = True
        if self._is_copy():
            return
        for share in list(self.shares):
            share.close()
        if self.admission is not None:
            self.admission.close(self._is_closed)
        if drain:
            self.replicas.drain(deadline)
        self.replicas.shut()
        with self._opening:
            opened = self._opened
        if (
            opened
        ):  # else the thread that loads it gets no further, and clears away what there is when it notices
            self._end()

    def _end(self) -> None:
        self.replicas.end()
        self._input_memory.close()

    def _is_copy(self) -> bool:
        """Whether this is a forked copy of the process that loaded the model."""
        return self.replicas.is_copy

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        return self.replicas.infos()

    def stats(self) -> ModelStats:
        calls, bytes_in, bytes_out = self.replicas.counts()
        return ModelStats(
            calls=calls,
            bytes_copied_in=bytes_in,
            bytes_copied_out=bytes_out,
            shared_memory=self._memory.used,
            blocks_held=self.replicas.blocks_held,
            errors=self.failures.by_type(),
            restarts=sum(worker.restarts for worker in self.workers),
            in_flight=self.replicas.in_flight,
            latency=self.latency.summaries(),
        )


def _publish(own: weakref.ref[IsolatedModel], link: Link | None) -> None:
    model = own()
    if model is not None:
        model._link = link


def _adopt(own: weakref.ref[IsolatedModel], specs: Specs) -> None:
    model = own()
    if model is not None and not model._specs_fixed:
        model.inputs, model.outputs = specs
        model._checks_outputs = model._check and model.outputs is not None
