"""A model in a worker process, called through shared memory.

The input arena belongs to the model, not to its worker: an array from `empty` stays good when the worker is replaced. A call whose
signature (names, dtypes, shapes) was seen before repeats neither the check against the spec nor the planning.
"""

from __future__ import annotations

import asyncio
import mmap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

import numpy as np

from .arrays import ArrayKind, kind_of, to_numpy
from .calls import Call
from .connection import Connection
from .errors import ModelClosed, OutOfSharedMemory, SpecError, WorkerDied
from .ipc import wire
from .ipc.arena import Arena, Extent, NoRoom
from .ipc.faults import ProtocolError
from .ipc.lease import Leases
from .ipc.packer import Packer
from .ipc.segment import Segment
from .memory import SharedMemory
from .model import Model, ModelStats, WorkerInfo, subset
from .readers import Collector, LoopReader
from .spec import TensorSpec, bind_inputs, bind_outputs
from .worker import WorkerProcess
from .workers.structure import Structure, unflatten

_FIRST_INPUT_SEGMENT = 1 << 20
_LARGEST_GROWTH = 256 << 20
_APPROVED_KEPT = 4096
#: Where a result's structure is kept in its plan's memo, beside the inputs it was found to fit.
_STRUCTURE = "structure"
#: Arrays from this many bytes on are looked up by address, whatever they are based on; smaller ones cost less to copy.
_LOOK_UP_BYTES = 1 << 14
_ONLY_NDARRAYS = {np.ndarray}

Specs = tuple[tuple[TensorSpec, ...] | None, tuple[TensorSpec, ...] | None]


class Launch:
    """How to start a worker of a model: `start` gives the process, `load` is the message that names the model to it, and `read` turns
    its reply into the specs of inputs and outputs, or raises LoadError. Used again for every replacement."""

    def __init__(
        self,
        start: Callable[[], WorkerProcess],
        load: dict[str, Any],
        read: Callable[[dict[str, Any]], Specs],
    ) -> None:
        self.start = start
        self.load = load
        self.read = read


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
    """See `Model`."""

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
    ) -> None:
        self.name = name
        self.platform = platform
        self._launch = launch
        self._check = check
        self._checks_outputs = False
        self._timeout = timeout
        self._wait = wait
        self._memory = SharedMemory(shm_limit)
        self._arena = Arena(self._grow)
        self._packer = Packer(self._arena, self._examine)
        self._maps: dict[int, Segment] = {}
        self._lent = Leases()  # arrays made by `empty`
        self._lent_extents: dict[int, Extent] = {}
        self._lending = threading.RLock()
        self._closed = False
        try:
            first = self._add_segment(_FIRST_INPUT_SEGMENT, 0)
            first.populate()
            self._arena.add(first)
            self._link = self._connect()
        except NoRoom as error:
            raise OutOfSharedMemory(f"model {name!r} cannot start: {error}") from error

    # Calls

    def infer(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        link = self._link
        call, kind = self._prepare(link, tuple(inputs), [*inputs.values()], 0, timeout)
        views = self._run(link, call)
        results = dict(zip(call.plan.names, views))
        if kind is not None:
            results = {name: kind.from_numpy(view) for name, view in results.items()}
        return results if outputs is None else subset(results, outputs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        link = self._link
        names, values, positional = self._named(args, kwargs)
        call, kind = self._prepare(link, names, values, positional, None)
        return self._rebuild(link, call, kind, self._run(link, call))

    def submit(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> Future[dict[str, Any]]:
        link = self._link
        future: Future[dict[str, Any]] = Future()
        future.set_running_or_notify_cancel()
        call, kind = self._prepare(link, tuple(inputs), [*inputs.values()], 0, timeout)

        def finish(call: Call) -> None:
            if future.done():
                return
            try:
                if call.failure is not None:
                    raise call.failure
                future.set_result(self._results(link, call, kind, outputs))
            except BaseException as error:
                future.set_exception(error)

        call.finish = finish
        self._send(link, call)
        link.collector.add(call)
        return future

    async def infer_async(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        link = self._link
        loop = asyncio.get_running_loop()
        here = threading.get_ident()
        ended: asyncio.Future[None] = loop.create_future()
        call, kind = self._prepare(link, tuple(inputs), [*inputs.values()], 0, timeout)

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        def finish(call: Call) -> None:
            if threading.get_ident() == here:
                wake()
            elif not loop.is_closed():
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
        woke = self._send(link, call)
        try:
            link.connection.wait(call, woke)
            return self._views(link, call)
        except BaseException:
            link.connection.calls.abandon(call)
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
        kind = None
        outside: tuple[int, ...] = ()
        places: tuple[int, ...] = ()
        for value in values:
            if type(value) is not np.ndarray or value.base is not None:
                values, kind = self._convert(names, values)
                outside, places = self._find_outside(values)
                break
        try:
            block = self._packer.pack(names, values, positional, outside)
        except NoRoom as error:
            raise self._out_of_memory(link, error) from error
        except (TypeError, ValueError) as error:
            if isinstance(error, SpecError):
                raise
            raise SpecError(f"the inputs of {self.name!r} cannot be sent: {error}") from error
        call = Call(block)
        if outside:
            call.places, call.keep = places, values
        if timeout is None:
            timeout = self._timeout
        if timeout is not None:
            call.deadline = time.monotonic() + timeout
        return call, kind

    def _send(self, link: _Link, call: Call) -> bool:
        try:
            return link.connection.send(call)
        except BaseException:
            link.connection.calls.abandon(call)
            raise

    def _convert(self, names: tuple[str, ...], values: list[Any]) -> tuple[list[Any], ArrayKind | None]:
        if {*map(type, values)} == _ONLY_NDARRAYS:
            return values, None
        specs = {} if self.inputs is None else {spec.name: spec for spec in self.inputs}
        return [
            to_numpy(value, specs.get(name), name) for name, value in zip(names, values, strict=True)
        ], kind_of(values)

    def _find_outside(self, arrays: list[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The indices of the arrays that lie in the input arena as they are to be sent, and their places."""
        outside, places = [], []
        for index, array in enumerate(arrays):
            base = array.base
            if base is None or not array.nbytes:
                continue
            root = base.base if type(base) is np.ndarray else base
            if type(root) is not mmap.mmap and array.nbytes < _LOOK_UP_BYTES:
                continue
            if not array.flags.c_contiguous or not array.dtype.isnative or array.dtype.hasobject:
                continue
            address = array.__array_interface__["data"][0]
            for start, segment in list(self._maps.items()):
                if start <= address and address + array.nbytes <= start + segment.size:
                    outside.append(index)
                    places.append(segment.id << wire.PLACE_BITS | (address - start))
                    break
        return tuple(outside), tuple(places)

    # Workers

    def _connect(self) -> _Link:
        process = self._launch.start()
        try:
            connection = Connection(process, self._packer, self._memory, self._wait)
            loaded = connection.open(self._launch.load, None)
            self.inputs, self.outputs = self._launch.read(loaded)
            self._checks_outputs = self._check and self.outputs is not None
        except BaseException:
            process.close(0)
            raise
        return _Link(connection, loaded["framework"], loaded["version"])

    def restart(self) -> None:
        """Replace the worker by a new one with the same model. Calls in flight fail with WorkerDied; arrays from `empty` stay good."""
        if self._closed:
            self._refuse(self._link)
        process = self._link.connection.process
        self._link.connection.close(
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
        self._link = self._connect()

    def close(self) -> None:
        self._closed = True
        self._link.connection.close(
            ModelClosed(f"model {self.name!r} is closed; load it again to call it"), grace=1
        )
        for segment in self._arena.segments.values():
            self._memory.forget(segment)

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        link = self._link
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

    def stats(self) -> ModelStats:
        connection = self._link.connection
        return ModelStats(
            calls=connection.sent,
            bytes_copied_in=connection.copied_in,
            bytes_copied_out=connection.calls.copied_out,
            shared_memory=self._memory.used,
            blocks_held=len(connection.outputs.leases),
        )

    def _refuse(self, link: _Link) -> NoReturn:
        if self._closed:
            raise ModelClosed(f"model {self.name!r} is closed; load it again to call it")
        raise link.connection.ended()

    # Specs

    def _examine(self, names: tuple[str, ...], arrays: list[Any]) -> dict[str, int]:
        if not self._check or self.inputs is None:
            return {}
        return bind_inputs(
            self.inputs, {name: (array.dtype, array.shape) for name, array in zip(names, arrays, strict=True)}
        )

    def _check_outputs(self, call: Call, views: list[Any]) -> None:
        """Check the outputs with the symbols that this call's inputs gave, and note with their plan that the two signatures fit."""
        assert self.outputs is not None
        plan = call.plan
        named = zip(plan.names, views, strict=True)
        bind_outputs(
            self.outputs, {name: (view.dtype, view.shape) for name, view in named}, call.stock.examined
        )
        if len(plan.memo) > _APPROVED_KEPT:
            plan.memo.clear()
        plan.memo[call.stock] = True

    # Memory

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        if self._closed:
            self._refuse(self._link)
        if dtype.hasobject:
            raise SpecError(
                f"an array of dtype {dtype} cannot lie in shared memory: its elements are Python objects"
            )
        size = dtype.itemsize
        for dim in shape:
            size *= dim
        with self._lending:
            self._reclaim()
            try:
                extent = self._allocate(size)
            except NoRoom as error:
                raise self._out_of_memory(self._link, error) from error
            array = np.ndarray(shape, dtype, extent.segment.map, extent.offset)  # type: ignore[call-overload]
            self._lent_extents[extent.place] = extent
            self._lent.lend(extent.place, [array])
            return array  # type: ignore[no-any-return]

    def _allocate(self, size: int) -> Extent:
        try:
            return self._arena.allocate(size)
        except NoRoom:
            self._packer.trim()
            return self._arena.allocate(size)

    def _reclaim(self) -> None:
        """Take back the memory of arrays from `empty` over which nothing looks any more."""
        with self._lending:
            for place in self._lent.collect():
                self._arena.free(self._lent_extents.pop(place))

    def _grow(self, size: int) -> Segment:
        return self._add_segment(size, min(self._arena.size, _LARGEST_GROWTH))

    def _add_segment(self, size: int, room_to_grow: int) -> Segment:
        segment = self._memory.create(size, room_to_grow=room_to_grow)
        self._maps[np.frombuffer(segment.map, np.uint8).__array_interface__["data"][0]] = segment
        return segment

    def _out_of_memory(self, link: _Link, error: NoRoom) -> OutOfSharedMemory:
        return OutOfSharedMemory(
            f"model {self.name!r}: {error}; {len(self._lent)} arrays from empty() are held, {link.connection.holders()}. "
            "Drop arrays that are no longer needed, or raise shm_limit"
        )
