"""A model in a worker process, called through shared memory.

The input arena belongs to the model, not to its worker: an array from `empty` stays good when the worker is replaced. A call whose
signature (names, dtypes, shapes) was seen before repeats neither the check against the spec nor the planning.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

import numpy as np

from .array_kinds import ArrayKind, kind_of
from .arrays import snapshot, to_numpy
from .calls import Call
from .connection import Connection
from .errors import ModelClosed, OpexecError, OutOfSharedMemory, SpecError, WorkerDied
from .input_memory import InputMemory
from .ipc.arena import NoRoom
from .ipc.faults import ProtocolError
from .ipc.packer import Block
from .launch import Launch
from .memory import SharedMemory
from .model import Model, ModelStats, WorkerInfo, subset
from .readers import Collector, LoopReader
from .signature import check_names, check_texts, signatures, split
from .spec import bind_inputs, bind_outputs
from .startup import Startup
from .worker import WorkerProcess
from .workers.structure import Structure, unflatten

_APPROVED_KEPT = 4096
#: Where a result's structure is kept in its plan's memo, beside the inputs it was found to fit.
_STRUCTURE = "structure"


class _Link:
    """The model's present connection, and what is only true of it."""

    def __init__(self, connection: Connection, framework: str, version: str) -> None:
        self.connection = connection
        self.framework = framework
        self.version = version
        self.collector = Collector(connection)
        self.loop_readers: dict[asyncio.AbstractEventLoop, LoopReader] = {}

    def loop_reader(self) -> LoopReader:
        loop = asyncio.get_running_loop()
        reader = self.loop_readers.get(loop)
        if reader is None:
            for old in [one for one in list(self.loop_readers) if one.is_closed()]:
                self.connection.remove_heir(self.loop_readers.pop(old).heir)
            reader = self.loop_readers[loop] = LoopReader(self.connection, loop)
        return reader


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
        background: bool = False,
    ) -> None:
        self.name = name
        self.platform = platform
        self._launch = launch
        self._check = check
        self._checks_outputs = False
        self._timeout = timeout
        self._wait = wait
        self._memory = SharedMemory(shm_limit)
        # Weakly: a model that nobody holds any more goes at once, with its memory, and not when cycles are collected.
        model = weakref.proxy(self)
        self._input_memory = InputMemory(self._memory, lambda names, arrays: model._examine(names, arrays))
        self._packer = self._input_memory.packer
        self._link: _Link | None = None
        self._starting: WorkerProcess | None = None
        self._startup = Startup(name)
        self._replacing = threading.Lock()
        #: What former workers count for in `stats`: calls, bytes copied in, bytes copied out.
        self._before = (0, 0, 0)
        self._closed = False
        try:
            self._input_memory.open()
            if background:
                threading.Thread(target=self._load, name=f"opexec-loading-{name}", daemon=True).start()
            else:
                self._link = self._connect()
                self._startup.succeed()
        except BaseException as error:
            self._input_memory.close()
            if isinstance(error, NoRoom):
                raise self._cannot_start(error) from error
            raise

    # Loading in the background

    def _load(self) -> None:
        try:
            self._link = self._connect()
        except BaseException as error:
            self._launch.failed(error)
            self._startup.fail(self._cannot_start(error) if isinstance(error, NoRoom) else error)
        else:
            self._startup.succeed()
        if self._closed:  # meanwhile, by somebody who leaves the rest to this thread
            self._end_workers()

    def _cannot_start(self, error: NoRoom) -> OutOfSharedMemory:
        return OutOfSharedMemory(f"model {self.name!r} cannot start: {error}")

    @property
    def ready(self) -> bool:
        link = self._link
        return link is not None and link.connection.dead is None and not self._closed

    def wait_ready(self, timeout: float | None = None) -> None:
        self._startup.wait(None if timeout is None else _deadline(timeout))
        if self._closed:
            raise self._is_closed()

    def _linked(self, timeout: float | None) -> tuple[_Link, float | None]:
        """The link, once there is one, and what is left of a call's timeout then."""
        if timeout is None:
            timeout = self._timeout
        deadline = None if timeout is None else _deadline(timeout)
        self._startup.wait(deadline)
        link = self._link
        assert link is not None
        return link, None if deadline is None else max(deadline - time.monotonic(), 0.0)

    def __getattr__(self, name: str) -> Any:
        if name in ("inputs", "outputs"):
            self._startup.wait()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    # Calls

    def infer(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        link = self._link
        if link is None:
            link, timeout = self._linked(timeout)
        try:
            names, values = tuple(inputs), [*inputs.values()]
        except (AttributeError, TypeError):
            names, values = split(inputs)  # says what is wrong
        call, kind = self._prepare(link, names, values, 0, timeout)
        views = self._run(link, call)
        results = dict(zip(call.plan.names, views))
        if kind is not None:
            results = {name: kind.from_numpy(view) for name, view in results.items()}
        return results if outputs is None else subset(results, outputs)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        link, timeout = self._link, None
        if link is None:
            link, timeout = self._linked(None)
        names, values, positional = self._named(args, kwargs)
        call, kind = self._prepare(link, names, values, positional, timeout)
        return self._rebuild(link, call, kind, self._run(link, call))

    def submit(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> Future[dict[str, Any]]:
        link = self._link
        if link is None:
            return self._submit_when_ready(inputs, outputs, timeout)
        future: Future[dict[str, Any]] = Future()
        future.set_running_or_notify_cancel()
        call, kind = self._prepare(link, *split(inputs), 0, timeout)

        def complete() -> None:
            try:
                if call.failure is not None:
                    raise call.failure
                results = self._results(link, call, kind, outputs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(results)

        try:
            link.collector.expect(call, complete)
            self._send(link, call)
        except BaseException:
            link.collector.forget(call)
            raise
        link.collector.wake()
        return future

    def _submit_when_ready(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None, timeout: float | None
    ) -> Future[dict[str, Any]]:
        """`submit` while the model is loading. As ever, the inputs are the caller's again when this returns."""
        names, values = split(inputs)
        kept = {name: snapshot(value, name) for name, value in zip(names, values, strict=True)}
        future: Future[dict[str, Any]] = Future()
        future.set_running_or_notify_cancel()
        if timeout is None:
            timeout = self._timeout
        deadline = None if timeout is None else _deadline(timeout)

        def begin(error: BaseException | None) -> None:
            try:
                if error is not None:
                    raise error
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                self.submit(kept, outputs=outputs, timeout=left).add_done_callback(finish)
            except BaseException as error:
                future.set_exception(error)

        def finish(answered: Future[dict[str, Any]]) -> None:
            error = answered.exception()
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answered.result())

        self._startup.when_done(begin, deadline)
        return future

    async def _linked_async(self, timeout: float | None) -> tuple[_Link, float | None]:
        """`_linked` for an event loop, which goes on meanwhile."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        def tell(error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its coroutines with it
                loop.call_soon_threadsafe(wake)

        if timeout is None:
            timeout = self._timeout
        deadline = None if timeout is None else _deadline(timeout)
        self._startup.when_done(tell, deadline)
        await ended
        return self._linked(None if deadline is None else max(deadline - time.monotonic(), 0.0))

    async def infer_async(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        link = self._link
        if link is None:
            link, timeout = await self._linked_async(timeout)
        loop = asyncio.get_running_loop()
        here = threading.get_ident()
        ended: asyncio.Future[None] = loop.create_future()
        call, kind = self._prepare(link, *split(inputs), 0, timeout)

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
            raise call.failure
        return self._results(link, call, kind, outputs)

    def _run(self, link: _Link, call: Call) -> list[Any]:
        """Send a prepared call, wait for its answer and give the arrays in it."""
        connection = link.connection
        try:
            connection.wait(call, connection.send(call))
            return self._views(link, call)
        except BaseException:
            connection.calls.abandon(call)
            raise

    def _views(self, link: _Link, call: Call) -> list[Any]:
        """The arrays of an answered call, checked against the spec."""
        views = link.connection.arrays(call)
        if self._checks_outputs and call.stock not in call.plan.memo:
            self._check_outputs(call, views)
        return views

    def _results(
        self, link: _Link, call: Call, kind: ArrayKind | None, outputs: Sequence[str] | None
    ) -> dict[str, Any]:
        results = dict(zip(call.plan.names, self._views(link, call)))
        if kind is not None:
            results = {name: kind.from_numpy(view) for name, view in results.items()}
        return results if outputs is None else subset(results, outputs)

    def _rebuild(self, link: _Link, call: Call, kind: ArrayKind | None, views: list[Any]) -> Any:
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
        self, link: _Link, names: tuple[str, ...], values: list[Any], positional: int, timeout: float | None
    ) -> tuple[Call, ArrayKind | None]:
        """Put the inputs into shared memory; the call is then ready to be sent."""
        if self._closed or link.connection.dead is not None:
            self._refuse(link)
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
            block = self._pack_with_what_is_left(link, names, values, positional, outside)
        except (TypeError, ValueError) as error:
            if isinstance(error, SpecError):
                raise
            raise self._not_to_be_sent(names, values, error) from error
        call = Call(block)
        if outside:
            call.places, call.keep = places, values
        call.deadline = deadline
        return call, kind

    def _pack_with_what_is_left(
        self,
        link: _Link,
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
            raise self._out_of_memory(link, error) from error

    def _not_to_be_sent(self, names: tuple[str, ...], values: list[Any], error: Exception) -> SpecError:
        """What is wrong with arrays that cannot be laid out: they do not fit the spec, or are of no dtype that can travel."""
        try:
            self._examine(names, values)
            check_texts(names, values)
        except SpecError as reason:
            return reason
        return SpecError(f"the inputs of {self.name!r} cannot be sent: {error}")

    def _send(self, link: _Link, call: Call) -> bool:
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

    def _connect(self) -> _Link:
        process = self._launch.start(self._started)
        connection = None
        try:
            connection = Connection(process, self._packer, self._memory, self._wait)
            with self._launch.turn():
                loaded = connection.open(self._launch.message, None)
            self.inputs, self.outputs = self._launch.read(loaded)
            self._checks_outputs = self._check and self.outputs is not None
        except BaseException as error:
            if connection is not None:
                connection.close(OpexecError(f"model {self.name!r} could not be loaded: {error}"), grace=0)
            process.close(0)
            raise
        self._packer.rouse = connection.rouse
        self._launch.loaded(loaded, process)
        return _Link(connection, loaded["framework"], loaded["version"])

    def _started(self, process: WorkerProcess) -> None:
        self._starting = process
        if self._closed:  # `close` may have looked before
            process.kill()

    def restart(self) -> None:
        self._refuse_copies()
        self._startup.wait_for_end()
        with self._replacing:
            if self._closed:
                raise self._is_closed()
            old = self._link
            if old is not None:
                process = old.connection.process
                old.connection.close(
                    WorkerDied(
                        f"worker {self.name!r} (pid {process.pid}) was ended by restart() with this call in flight",
                        pid=process.pid,
                        exit_code=None,
                        signal=None,
                        stderr=(),
                        stage="call",
                    ),
                    grace=0,
                )
            try:
                link = self._connect()
            except BaseException:
                if self._closed:
                    raise self._is_closed() from None
                raise
            if old is not None:
                calls, bytes_in, bytes_out = self._before
                self._before = (
                    calls + old.connection.sent,
                    bytes_in + old.connection.copied_in,
                    bytes_out + old.connection.calls.copied_out,
                )
            self._link = link
            if self._startup.failure is not None:
                self._startup = Startup(self.name)
                self._startup.succeed()

    def close(self) -> None:
        self._closed = True
        if self._is_copy():
            return
        if self._startup.fail(self._is_closed()):
            # It was loading. The thread that does so gets no further, and clears away what there is when it notices.
            if self._starting is not None:
                self._starting.kill()
        else:
            self._end_workers()

    def _end_workers(self) -> None:
        link = self._link
        if link is not None:
            link.connection.close(self._is_closed(), grace=1)
        starting = self._starting
        if starting is not None and (link is None or starting is not link.connection.process):
            starting.kill()  # a restart() that is under way
        with self._replacing:
            if self._link is not None:
                self._link.connection.close(self._is_closed(), grace=1)
            self._input_memory.close()

    def _is_closed(self) -> ModelClosed:
        return ModelClosed(f"model {self.name!r} is closed; load it again to call it")

    def _is_copy(self) -> bool:
        """Whether this is a forked copy of the process that loaded the model."""
        link = self._link
        return self._startup.is_copy if link is None else link.connection.process.is_copy

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        link = self._link
        if link is None:
            return (self._unborn(),)
        process = link.connection.process
        alive = link.connection.dead is None and process.alive
        return (
            WorkerInfo(
                pid=process.pid,
                interpreter=str(process.interpreter),
                python=process.hello["python"],
                numpy=process.hello["numpy"],
                framework=link.framework,
                framework_version=link.version,
                state="stopped" if not alive else "busy" if link.connection.pending else "ready",
            ),
        )

    def _unborn(self) -> WorkerInfo:
        """The worker of a model that is not loaded yet, or could not be."""
        starting = self._starting
        hello = {} if starting is None else starting.hello
        return WorkerInfo(
            pid=None if starting is None else starting.pid,
            interpreter="" if starting is None else str(starting.interpreter),
            python=hello.get("python", ""),
            numpy=hello.get("numpy", ""),
            framework="",
            framework_version="",
            state="stopped" if self._closed else "loading" if self._startup.under_way else "failed",
        )

    def stats(self) -> ModelStats:
        link = self._link
        if link is None:
            return ModelStats(
                calls=0, bytes_copied_in=0, bytes_copied_out=0, shared_memory=self._memory.used, blocks_held=0
            )
        connection = link.connection
        calls, bytes_in, bytes_out = self._before
        return ModelStats(
            calls=calls + connection.sent,
            bytes_copied_in=bytes_in + connection.copied_in,
            bytes_copied_out=bytes_out + connection.calls.copied_out,
            shared_memory=self._memory.used,
            blocks_held=len(connection.outputs.leases),
        )

    def _refuse(self, link: _Link) -> NoReturn:
        if self._closed:
            raise self._is_closed()
        raise link.connection.ended()

    def _refuse_copies(self) -> None:
        """A forked copy of the caller shares the input arena with it, and must neither use it nor replace the worker."""
        link = self._link
        if link is not None and link.connection.process.is_copy:
            raise link.connection.ended()

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
        link, _ = self._linked(None)
        if dtype.hasobject:
            raise SpecError(
                f"an array of dtype {dtype} cannot lie in shared memory: its elements are Python objects"
            )
        try:
            return self._input_memory.empty(shape, dtype)
        except NoRoom as error:
            raise self._out_of_memory(link, error) from error

    def _out_of_memory(self, link: _Link, error: NoRoom) -> OutOfSharedMemory:
        return OutOfSharedMemory(
            f"model {self.name!r}: {error}; {self._input_memory.held} arrays from empty() are held, {link.connection.holders()}. "
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
