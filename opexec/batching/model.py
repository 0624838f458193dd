"""A model whose calls are joined into batches, over one in a worker process."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from ..calling.array_kinds import ArrayKind, kind_of
from ..calling.arrays import to_numpy
from ..calling.signature import split
from ..calling.steps import deadline_in, time_left
from ..connection.timing import now
from ..errors import ModelClosed
from ..isolated import IsolatedModel
from ..metrics.errors import ErrorCounts, counted
from ..metrics.latency import Latency
from ..model import Model, ModelStats, WorkerInfo, subset
from ..sharing.shared import Share
from ..supervision.admission import Admission, Seat
from ..supervision.policies import Supervision
from ..threads import aside
from .batch import JoinedCall, Part
from .batcher import Batcher
from .policy import BatchPolicy
from .seam import Seam, Tensors

_DRAIN_S = 0.002
#: From so many bytes on, inputs are copied in a thread for an event loop: it takes longer than to hand it over.
_ASIDE = 1 << 20


class BatchedModel(Model):
    """See `Model` and docs/batching.md.

    A call that finds an idle worker, and nobody to be joined with, is made by the model beneath as if there were no batching.
    """

    def __init__(
        self, model: IsolatedModel, policy: BatchPolicy, supervision: Supervision, timeout: float | None
    ) -> None:
        self.name = model.name
        self.platform = model.platform
        self.latency: Latency = model.latency
        self.failures = ErrorCounts()
        self._model = model
        self._policy = policy
        self._supervision = supervision
        self._timeout = timeout
        limit = supervision.max_pending
        self._admission = (
            None if limit is None else Admission(model.name, limit, waits=supervision.when_full == "wait")
        )
        self._made: Batcher | None = None
        self._making = threading.Lock()
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        if name in ("inputs", "outputs"):
            return getattr(self._model, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    # Calls

    @counted
    def infer(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        deadline = self._due(timeout)
        batcher = self._batcher(deadline)
        tensors, kind = self._take(batcher, *split(inputs))
        seat = None if self._admission is None else self._admission.enter(deadline)
        try:
            call = JoinedCall(batcher, _results(kind, outputs), deadline, _since(seat))
            alone = batcher.join(tensors, call)
            if alone is None:
                return batcher.wait(call)  # type: ignore[no-any-return]
            try:
                self._has_waited(seat)
                return self._model.infer(inputs, outputs=outputs, timeout=time_left(deadline))
            finally:
                alone.leave()
        finally:
            if seat is not None:
                seat.leave()

    @counted
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        deadline = self._due(None)
        batcher = self._batcher(deadline)
        names, values, _ = self._named(args, kwargs)
        tensors, kind = self._take(batcher, names, values)
        seat = None if self._admission is None else self._admission.enter(deadline)
        try:
            call = JoinedCall(batcher, lambda part: part.structured(kind), deadline, _since(seat))
            alone = batcher.join(tensors, call)
            if alone is None:
                return batcher.wait(call)
            try:
                self._has_waited(seat)
                return self._model(**dict(zip(names, values, strict=True)))
            finally:
                alone.leave()
        finally:
            if seat is not None:
                seat.leave()

    @counted
    def submit(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> Future[dict[str, Any]]:
        deadline = self._due(timeout)
        batcher = self._batcher(deadline)
        tensors, kind = self._take(batcher, *split(inputs))
        seat = None if self._admission is None else self._admission.enter(deadline)
        future: Future[dict[str, Any]]
        try:
            call = future = JoinedCall(batcher, _results(kind, outputs), deadline, _since(seat))
            alone = batcher.join(tensors, call, timed=True)
            if alone is not None:
                try:
                    self._has_waited(seat)
                    future = self._model.submit(inputs, outputs=outputs, timeout=time_left(deadline))
                except BaseException:
                    alone.leave()
                    raise
        except BaseException:
            if seat is not None:
                seat.leave()
            raise

        def ended(future: Future[dict[str, Any]]) -> None:
            if alone is not None:
                alone.leave()
            if seat is not None:
                seat.leave()
            error = None if future.cancelled() else future.exception()
            if error is not None:
                self.failures.add(error)

        future.add_done_callback(ended)
        return future

    @counted
    async def infer_async(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        deadline = self._due(timeout)
        batcher = self._made
        if batcher is None:  # whoever is first may have to wait for the model
            batcher = await aside(self._batcher, deadline)
        self._model._refuse_copies()  # before any lock
        tensors, kind = self._take(batcher, *split(inputs))
        seat = None if self._admission is None else await self._admission.enter_async(deadline)
        try:
            call = JoinedCall(batcher, _results(kind, outputs), deadline, _since(seat))
            if sum(array.nbytes for array in tensors.arrays) < _ASIDE or tensors.rows > self._policy.max_size:
                alone = batcher.join_here(tensors, call, timed=True)
            else:
                try:
                    alone = await aside(batcher.join_here, tensors, call, True, True)
                except asyncio.CancelledError:
                    call.cancel()
                    raise
            if alone is None:
                return await asyncio.wrap_future(call)  # type: ignore[no-any-return]
            try:
                self._has_waited(seat)
                return await self._model.infer_async(inputs, outputs=outputs, timeout=time_left(deadline))
            finally:
                alone.leave()
        finally:
            if seat is not None:
                seat.leave()

    def _due(self, timeout: float | None) -> float | None:
        if timeout is None:
            timeout = self._timeout
        return None if timeout is None else deadline_in(timeout)

    def _batcher(self, deadline: float | None) -> Batcher:
        """Waits for the specs, if need be. Raises why there are none, and SpecError where nothing can be joined by them."""
        self._model._refuse_copies()  # before any lock, which another thread of the original may have held
        if self._closed:
            raise ModelClosed(f"model {self.name!r} is closed; load it again to call it")
        made = self._made
        if made is None:
            self._model.wait_ready(time_left(deadline))
            with self._making:
                made = self._made
                if made is None:
                    policy = self._policy
                    seam = Seam(self.name, self._model.inputs, self._model.outputs, policy.symbol)
                    made = self._made = Batcher(
                        self._model, seam, policy, self._supervision.replicas, self._supervision.retries
                    )
        return made

    def _take(
        self, batcher: Batcher, names: tuple[str, ...], values: list[Any]
    ) -> tuple[Tensors, ArrayKind | None]:
        """The inputs as arrays, checked."""
        kind = None
        for value in values:
            if type(value) is not np.ndarray:
                specs = {spec.name: spec for spec in self._model.inputs or ()}
                kind = kind_of(values)
                values = [
                    to_numpy(one, specs.get(name), name) for name, one in zip(names, values, strict=True)
                ]
                break
        return batcher.seam.tensors(names, values), kind

    def _has_waited(self, seat: Seat | None) -> None:
        """A call is made now, alone, for which it may have waited for its seat."""
        if seat is not None and seat.since:
            self.latency.add_wait(now() - seat.since)

    # Workers

    @property
    def ready(self) -> bool:
        return self._model.ready

    def wait_ready(self, timeout: float | None = None) -> None:
        self._model.wait_ready(timeout)
        self._batcher(None)

    def restart(self) -> None:
        self._model.restart()

    def swap(self, source: str | os.PathLike[str], *, wait: bool = True, **arguments: Any) -> None:
        self._model.swap(source, wait=wait, **arguments)
        self.platform = self._model.platform

    def share(self, name: str | None = None) -> Share:
        """See `Model.share`. Calls of another process are joined there, with each other."""
        return self._model.share_as(name, self, self._policy)

    def close(self, drain: bool = False, timeout: float | None = None) -> None:
        deadline = None if timeout is None else deadline_in(timeout)
        self._closed = True
        batcher = self._made
        if batcher is not None and not self._model.replicas.is_copy:
            if self._admission is not None:
                self._admission.close(
                    lambda: ModelClosed(f"model {self.name!r} is closed; load it again to call it")
                )
            if drain:
                batcher.hurry()
            while drain and batcher.under_way and (deadline is None or time.monotonic() < deadline):
                time.sleep(_DRAIN_S)
            batcher.close()
        self._model.close(drain, time_left(deadline))

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        return self._model.workers

    def stats(self) -> ModelStats:
        stats = self._model.stats()
        batcher = self._made
        if batcher is None:
            return replace(stats, errors=self.failures.by_type())
        batches, copied = batcher.stats()
        return replace(
            stats,
            bytes_copied_in=stats.bytes_copied_in + copied,
            errors=self.failures.by_type(),
            in_flight=batcher.under_way,
            batches=batches,
        )

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        return self._model._empty(shape, dtype)


def _since(seat: Seat | None) -> int:
    """Since when its call waits, by `timing.now`; 0 if it has not waited."""
    return 0 if seat is None else seat.since


def _results(kind: ArrayKind | None, outputs: Sequence[str] | None) -> Any:
    """What makes a call's result of its part of the answer."""

    def make(part: Part) -> dict[str, Any]:
        results: dict[str, Any] = part.views
        if kind is not None:
            results = {name: kind.from_numpy(view) for name, view in results.items()}
        return results if outputs is None else subset(results, outputs)

    return make
