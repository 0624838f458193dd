"""A model in a worker process, called through shared memory.

The input arena belongs to the model, not to its worker: an array from `empty` stays good when the worker is replaced. A call whose
signature (names, dtypes, shapes) was seen before repeats neither the check against the spec nor the planning.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from . import swapping
from .admission import Admission
from .array_kinds import ArrayKind, kind_of
from .arrays import to_numpy
from .calls import Again, Call
from .connection import Connection
from .errors import CallTimeout, ModelClosed, OpexecError, OutOfSharedMemory, SpecError, WorkerDied
from .errors import ProtocolError as ProtocolFault
from .futures import Submission
from .input_memory import InputMemory
from .ipc import wire
from .ipc.arena import NoRoom
from .ipc.faults import ProtocolError
from .ipc.packer import Block
from .launch import Launch
from .memory import SharedMemory
from .metrics.errors import ErrorCounts, counted
from .metrics.latency import Latency
from .model import Model, ModelStats, WorkerInfo, subset
from .policies import Supervision
from .replica import Link
from .replicas import Replicas
from .request import Specs
from .signature import check_names, check_texts, signatures, split
from .spec import bind_inputs, bind_outputs
from .timing import CallTimes, Sampler, assembled, now
from .workers.structure import Structure, unflatten

if TYPE_CHECKING:
    from .sharing.shared import Share

_APPROVED_KEPT = 4096
#: From so many bytes on, inputs are copied in a thread for an event loop: it takes longer than to hand it over.
_ASIDE = 1 << 20
#: Where a result's structure is kept in its plan's memo, beside the inputs it was found to fit.
_STRUCTURE = "structure"


class IsolatedModel(Model):
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
        self._retries = supervision.retries
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
        limit = supervision.max_pending
        #: Counts the calls, where their number is limited.
        self.admission = (
            None if limit is None else Admission(name, limit, waits=supervision.when_full == "wait")
        )
        #: The specs stay as they are: another model was swapped in.
        self._specs_fixed = False
        #: The times of some calls.
        self.sampler = Sampler()
        self.latency: Latency = Latency(self.sampler)
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
        self.replicas.startup.wait(None if timeout is None else _deadline(timeout))
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
                call, kind = self._prepare(link, *split(inputs), 0, _left(deadline))
            except Again as again:
                raise again.error from None
            call.began, call.timed = began, wire.TIMED
            try:
                link.connection.wait(call, link.connection.send(call))
                results = self._results(link, call, kind, outputs)
            except BaseException:
                link.connection.calls.abandon(call)
                raise
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
        self._refuse_copies()
        names, values = split(inputs)
        submission = Submission(self, names, values, outputs, self._due(timeout), self._retries)
        submission.start()
        return submission.future

    @counted
    async def infer_async(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        self._refuse_copies()
        names, values = split(inputs)
        deadline = self._due(timeout)
        tries = self._retries
        if self.admission is not None:
            await self.admission.enter_async(deadline)
        try:
            while True:
                link = self.replicas.try_claim()
                if link is None:
                    await self._wait_async(deadline)
                    continue
                try:
                    call, kind = await self._run_async(link, names, values, _left(deadline))
                    return self._results(link, call, kind, outputs)
                except Again as again:
                    tries -= again.sent
                finally:
                    self.replicas.unclaim(link)
        finally:
            if self.admission is not None:
                self.admission.leave()

    async def _wait_async(self, deadline: float | None) -> None:
        """Wait for a worker, while the event loop goes on."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()

        def wake(error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result(error)

        def tell(error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its coroutines with it
                loop.call_soon_threadsafe(wake, error)

        self.replicas.startup.when_done(tell, deadline)
        error = await ended
        if error is not None:
            raise error

    def _copied(self, values: list[Any]) -> int:
        """How many bytes a call with these inputs copies, about."""
        large = [value for value in values if getattr(value, "nbytes", 0) >= _ASIDE // 64]
        copied = sum(value.nbytes for value in large)
        if copied >= _ASIDE and all(type(value) is np.ndarray for value in large):
            outside, _ = self._input_memory.find(large)
            copied -= sum(large[place].nbytes for place in outside)
        return copied

    async def _prepare_aside(
        self, link: Link, names: tuple[str, ...], values: list[Any], timeout: float | None
    ) -> tuple[Call, ArrayKind | None]:
        """`_prepare`, in a thread: a large copy would keep the event loop from all else."""
        fate: dict[int, Call | None] = {}

        def prepare() -> tuple[Call, ArrayKind | None]:
            prepared = self._prepare(link, names, values, 0, timeout)
            if fate.setdefault(0, prepared[0]) is None:
                link.connection.calls.abandon(prepared[0])
            return prepared

        try:
            return await asyncio.get_running_loop().run_in_executor(None, prepare)
        except asyncio.CancelledError:
            call = fate.setdefault(0, None)
            if call is not None:
                link.connection.calls.abandon(call)
            raise

    async def _run_async(
        self, link: Link, names: tuple[str, ...], values: list[Any], timeout: float | None
    ) -> tuple[Call, ArrayKind | None]:
        """`_prepare`, and wait for the answer."""
        loop = asyncio.get_running_loop()
        here = threading.get_ident()
        ended: asyncio.Future[None] = loop.create_future()
        if self._copied(values) < _ASIDE:
            call, kind = self._prepare(link, names, values, 0, timeout)
        else:
            call, kind = await self._prepare_aside(link, names, values, timeout)

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        def finish(call: Call) -> None:
            if threading.get_ident() == here:
                wake()
            else:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and its coroutines with it
                    loop.call_soon_threadsafe(wake)

        call.finish = finish
        self._send(link, call)
        reader = link.loop_reader()
        reader.add(call)
        try:
            timer = None
            if call.deadline is not None:
                timer = loop.call_later(
                    call.deadline - time.monotonic() + 0.001, link.connection.expire, call
                )
            try:
                await ended
            finally:
                if timer is not None:
                    timer.cancel()
        except BaseException:
            link.connection.calls.abandon(call)
            raise
        finally:
            reader.remove(call)
        if call.failure is not None:
            self._recover(link, call, call.failure)
            raise call.failure
        return call, kind

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
        tries = self._retries
        if again is not None:
            deadline = again.deadline or deadline
            tries -= again.sent
        if self.admission is not None:
            self.admission.enter(deadline)
        try:
            while True:
                with self.replicas.claimed(deadline) as link:
                    try:
                        call, kind = self._prepare(link, names, values, positional, _left(deadline))
                        return link, call, kind, self._run(link, call, tries)
                    except Again as one:
                        tries -= one.sent
        finally:
            if self.admission is not None:
                self.admission.leave()

    def _due(self, timeout: float | None) -> float | None:
        """When a call with that timeout is to end."""
        if timeout is None:
            timeout = self._timeout
        return None if timeout is None else _deadline(timeout)

    def _run(self, link: Link, call: Call, tries: int | None = None) -> list[Any]:
        """Send a prepared call, wait for its answer and give the arrays in it. Raises Again if it may be made again, `tries` times at most."""
        connection = link.connection
        try:
            connection.wait(call, connection.send(call))
            return self._views(link, call)
        except BaseException as error:
            connection.calls.abandon(call)
            self._recover(link, call, error, tries)
            raise

    def _recover(self, link: Link, call: Call, error: BaseException, tries: int | None = None) -> None:
        """What a call's failure means for its worker. Raises Again if the call may be made again."""
        if type(error) is CallTimeout:
            self.replicas.overdue(link, call)
        elif isinstance(error, WorkerDied | ProtocolFault) and not link.process.is_copy:
            self.replicas.lost(link)
            if self._closed:
                return
            if not call.id or (isinstance(error, WorkerDied) and error.stage == "idle"):
                # It was not sent, or the worker died before it had taken it.
                raise Again(error, False, call.deadline) from None
            if isinstance(error, WorkerDied) and (self._retries if tries is None else tries):
                raise Again(error, True, call.deadline) from None

    def _views(self, link: Link, call: Call) -> list[Any]:
        """The arrays of an answered call, checked against the spec."""
        seen = now() if call.timed else 0
        views = link.connection.arrays(call)
        if self._checks_outputs and call.stock not in call.plan.memo:
            self._check_outputs(call, views)
        if seen:
            self._keep_times(link.connection, call, seen)
        return views

    def _keep_times(self, connection: Connection, call: Call, seen: int) -> None:
        assert call.answer is not None
        call.times = assembled(call.began, call.sent, call.answer, seen, now())
        self.sampler.add(call.times)
        connection.next_timed = connection.sent + self.sampler.left_out

    def _results(
        self, link: Link, call: Call, kind: ArrayKind | None, outputs: Sequence[str] | None
    ) -> dict[str, Any]:
        results = dict(zip(call.plan.names, self._views(link, call)))
        if kind is not None:
            results = {name: kind.from_numpy(view) for name, view in results.items()}
        return results if outputs is None else subset(results, outputs)

    def _rebuild(self, link: Link, call: Call, kind: ArrayKind | None, views: list[Any]) -> Any:
        if kind is not None:
            views = [kind.from_numpy(view) for view in views]
        try:
            structure = call.plan.memo.get(_STRUCTURE)
            if structure is None:
                structure = call.plan.memo[_STRUCTURE] = Structure.from_plain(call.plan.note)
            return unflatten(structure, views)
        except ValueError as error:
            raise link.connection.broken(ProtocolError(str(error))) from error

    # One call's way in

    def _prepare(
        self, link: Link, names: tuple[str, ...], values: list[Any], positional: int, timeout: float | None
    ) -> tuple[Call, ArrayKind | None]:
        """Put the inputs into shared memory; the call is then ready to be sent."""
        connection = link.connection
        if self._closed or connection.dead is not None:
            self._refuse(link)
        began = now() if connection.sent >= connection.next_timed else 0
        if timeout is None:
            timeout = self._timeout
        deadline = None if timeout is None else _deadline(timeout)
        kind = None
        outside: tuple[int, ...] = ()
        places: tuple[int, ...] = ()
        based = False
        for value in values:
            if type(value) is not np.ndarray:
                values, kind = self._convert(names, values)
                based = True
                break
            if value.base is not None:
                based = True
        if based:
            outside, places = self._input_memory.find(values)
        try:
            block = self._packer.pack(names, values, positional, outside)
        except NoRoom:
            block = self._pack_with_what_is_left(names, values, positional, outside)
        except (TypeError, ValueError) as error:
            if isinstance(error, SpecError):
                raise
            raise self._not_to_be_sent(names, values, error) from error
        call = Call(block)
        if outside:
            call.places, call.keep = places, values
        call.deadline = deadline
        if began:
            call.began = began
            call.timed = wire.TIMED
        return call, kind

    def _pack_with_what_is_left(
        self,
        names: tuple[str, ...],
        values: list[Any],
        positional: int,
        outside: tuple[int, ...],
    ) -> Block:
        """Pack where the arena cannot grow: arrays from `empty` that have been dropped meanwhile may leave enough."""
        self._input_memory.reclaim()
        try:
            return self._packer.pack(names, values, positional, outside)
        except NoRoom as error:
            raise self._out_of_memory(error) from error

    def _not_to_be_sent(self, names: tuple[str, ...], values: list[Any], error: Exception) -> SpecError:
        """What is wrong with arrays that cannot be laid out: they do not fit the spec, or are of no dtype that can travel."""
        try:
            self._examine(names, values)
            check_texts(names, values)
        except SpecError as reason:
            return reason
        return SpecError(f"the inputs of {self.name!r} cannot be sent: {error}")

    def _send(self, link: Link, call: Call) -> bool:
        try:
            return link.connection.send(call)
        except BaseException:
            link.connection.calls.abandon(call)
            raise

    def _convert(self, names: tuple[str, ...], values: list[Any]) -> tuple[list[Any], ArrayKind | None]:
        specs = {} if self.inputs is None else {spec.name: spec for spec in self.inputs}
        return [
            to_numpy(value, specs.get(name), name) for name, value in zip(names, values, strict=True)
        ], kind_of(values)

    # Workers

    def restart(self) -> None:
        self._refuse_copies()
        self._wait_until_opened()
        with self.replicas.replacing():
            self.replicas.restart()

    def swap(self, source: str | os.PathLike[str], *, wait: bool = True, **arguments: Any) -> None:
        self._refuse_copies()
        launch, platform = swapping.launch(self.name, source, arguments)
        self._wait_until_opened()
        if "inputs" not in self.__dict__:
            self.replicas.startup.wait()  # raises why it could not be loaded
        contract = self.inputs, self.outputs
        with self.replicas.replacing():
            before, self._specs_fixed = self._specs_fixed, True
            try:
                self.replicas.swap(launch, lambda specs: swapping.check(contract, specs), wait)
            except BaseException:
                self._specs_fixed = before
                raise
            self.platform = platform

    def share(self, name: str | None = None) -> Share:
        from .sharing.shared import Share  # only here: most models are never shared

        self._refuse_copies()
        return Share(self, name)

    def _wait_until_opened(self) -> None:
        """For the end, good or bad, of the first loading."""
        while not self._opened and not self._closed:
            self.replicas.startup.wait_for_end()
            if not self._opened:
                time.sleep(0.001)

    def close(self, drain: bool = False, timeout: float | None = None) -> None:
        deadline = None if timeout is None else _deadline(timeout)
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

    def _is_closed(self) -> ModelClosed:
        return ModelClosed(f"model {self.name!r} is closed; load it again to call it")

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

    def _refuse(self, link: Link) -> NoReturn:
        if self._closed:
            raise self._is_closed()
        error = link.connection.ended()
        if not link.process.is_copy:
            self.replicas.lost(link)
            raise Again(error, False, None)
        raise error

    def _refuse_copies(self) -> None:
        """A forked copy of the caller shares the input arena with it, and must neither use it nor replace the worker."""
        if self.replicas.is_copy:
            raise self.replicas.not_here()

    # Specs

    def _examine(self, names: tuple[str, ...], arrays: list[Any]) -> dict[str, int]:
        check_names(names)
        if not self._check or self.inputs is None:
            return {}
        return bind_inputs(self.inputs, signatures(names, arrays))

    def _check_outputs(self, call: Call, views: list[Any]) -> None:
        """Check the outputs with the symbols that this call's inputs gave, and note with their plan that the two signatures fit."""
        assert self.outputs is not None
        plan = call.plan
        bind_outputs(self.outputs, signatures(plan.names, views), call.stock.examined)
        if len(plan.memo) > _APPROVED_KEPT:
            plan.memo.clear()
        plan.memo[call.stock] = True

    # Memory

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        self._refuse_copies()
        if self._closed:
            raise self._is_closed()
        if dtype.hasobject:
            raise SpecError(
                f"an array of dtype {dtype} cannot lie in shared memory: its elements are Python objects"
            )
        try:
            return self._input_memory.empty(shape, dtype)
        except NoRoom as error:
            raise self._out_of_memory(error) from error

    def _out_of_memory(self, error: NoRoom) -> OutOfSharedMemory:
        return OutOfSharedMemory(
            f"model {self.name!r}: {error}; {self._input_memory.held} arrays from empty() are held, {self.replicas.holders()}. "
            "Drop arrays that are no longer needed, or raise shm_limit"
        )


def _deadline(timeout: float) -> float:
    """The time by `time.monotonic` that is `timeout` seconds from now."""
    try:
        deadline = time.monotonic() + timeout
    except TypeError:
        deadline = math.nan
    if math.isnan(deadline):
        raise ValueError(f"timeout is {timeout!r}; expected a number of seconds, or None")
    return deadline


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _publish(own: weakref.ref[IsolatedModel], link: Link | None) -> None:
    model = own()
    if model is not None:
        model._link = link


def _adopt(own: weakref.ref[IsolatedModel], specs: Specs) -> None:
    model = own()
    if model is not None and not model._specs_fixed:
        model.inputs, model.outputs = specs
        model._checks_outputs = model._check and model.outputs is not None
