"""A model in a worker process, called through shared memory.

The input arena belongs to the model, not to its worker: an array from `empty` stays good when the worker is replaced. A call whose
signature (names, dtypes, shapes) was seen before repeats neither the check against the spec nor the planning.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import mmap
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .arrays import ArrayKind, kind_of, to_numpy
from .calls import Call
from .connection import Connection
from .errors import ModelClosed, OpexecError, OutOfSharedMemory, SpecError, WorkerDied
from .ipc import wire
from .ipc.arena import Arena, Extent, NoRoom
from .ipc.faults import ProtocolError
from .ipc.lease import Leases
from .ipc.packer import Block, Packer
from .ipc.segment import Segment
from .memory import SharedMemory
from .model import Model, ModelStats, WorkerInfo, subset
from .readers import Collector, LoopReader
from .signature import check_names, check_texts, signatures, split
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

Specs = tuple[tuple[TensorSpec, ...] | None, tuple[TensorSpec, ...] | None]


_addressof = ctypes.addressof
_byte_at = ctypes.c_char.from_buffer


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


class _Own(NamedTuple):
    """An array made by `empty`, as it was made."""

    array: weakref.ref[np.ndarray[Any, Any]]
    dtype: np.dtype[Any]
    place: int


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
        # Weakly: a model that nobody holds any more goes at once, with its memory, and not when cycles are collected.
        model = weakref.proxy(self)
        self._arena = Arena(lambda size: model._grow(size))
        self._packer = Packer(self._arena, lambda names, arrays: model._examine(names, arrays))
        self._maps: dict[int, Segment] = {}
        self._lent = Leases()  # arrays made by `empty`
        self._lent_extents: dict[int, Extent] = {}
        #: The same by identity, which is quicker to tell than an address.
        self._own_arrays: dict[int, _Own] = {}
        self._lending = threading.RLock()
        self._replacing = threading.Lock()
        #: What former workers count for in `stats`: calls, bytes copied in, bytes copied out.
        self._before = (0, 0, 0)
        self._closed = False
        try:
            first = self._add_segment(_FIRST_INPUT_SEGMENT, 0)
            first.populate()
            self._arena.add(first)
            self._link = self._connect()
        except BaseException as error:
            self._forget_segments()
            if isinstance(error, NoRoom):
                raise OutOfSharedMemory(f"model {name!r} cannot start: {error}") from error
            raise

    # Calls

    def infer(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        link = self._link
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

    async def infer_async(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        link = self._link
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
            outside, places = self._find_outside(values)
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
        self._reclaim()
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

    def _find_outside(self, arrays: list[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The indices of the arrays that lie in the input arena as they are to be sent, and their places."""
        outside, places = [], []
        for index, array in enumerate(arrays):
            base = array.base
            if base is None:
                continue
            own = self._own_arrays.get(id(array))
            if (
                own is not None
                and array.dtype is own.dtype  # both of these can be set in place
                and array.flags.c_contiguous
                and own.array() is array
            ):
                place: int | None = own.place
            else:
                place = self._place_of(array, base)
            if place is not None:
                outside.append(index)
                places.append(place)
        return tuple(outside), tuple(places)

    def _place_of(self, array: np.ndarray[Any, Any], base: object) -> int | None:
        """Where in the input arena an array lies; None if it does not, or has to be copied all the same."""
        size = array.nbytes
        if not size or (size < _LOOK_UP_BYTES and type(getattr(base, "base", base)) is not mmap.mmap):
            return None
        dtype = array.dtype
        if not array.flags.c_contiguous or not dtype.isnative or dtype.hasobject:
            return None
        address = _address(array)
        for start, segment in self._maps.items():  # a dict that is replaced, never changed
            if start <= address and address + size <= start + segment.size:
                return segment.id << wire.PLACE_BITS | (address - start)
        return None

    # Workers

    def _connect(self) -> _Link:
        self._starting = process = self._launch.start()
        connection = None
        try:
            connection = Connection(process, self._packer, self._memory, self._wait)
            loaded = connection.open(self._launch.load, None)
            self.inputs, self.outputs = self._launch.read(loaded)
            self._checks_outputs = self._check and self.outputs is not None
        except BaseException as error:
            if connection is not None:
                connection.close(OpexecError(f"model {self.name!r} could not be loaded: {error}"), grace=0)
            process.close(0)
            raise
        self._packer.rouse = connection.rouse
        return _Link(connection, loaded["framework"], loaded["version"])

    def restart(self) -> None:
        self._refuse_copies()
        with self._replacing:
            if self._closed:
                self._refuse(self._link)
            connection = self._link.connection
            process = connection.process
            connection.close(
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
                    self._refuse(self._link)
                raise
            calls, bytes_in, bytes_out = self._before
            self._before = (
                calls + connection.sent,
                bytes_in + connection.copied_in,
                bytes_out + connection.calls.copied_out,
            )
            self._link = link

    def close(self) -> None:
        self._closed = True
        if self._link.connection.process.is_copy:
            return
        self._link.connection.close(
            ModelClosed(f"model {self.name!r} is closed; load it again to call it"), grace=1
        )
        if self._starting is not self._link.connection.process:  # by a restart() that is under way
            self._starting.kill()
        with self._replacing:
            self._link.connection.close(ModelClosed(f"model {self.name!r} is closed"), grace=1)
            self._forget_segments()

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
            raise ModelClosed(f"model {self.name!r} is closed; load it again to call it")
        raise link.connection.ended()

    def _refuse_copies(self) -> None:
        """A forked copy of the caller shares the input arena with it, and must neither use it nor replace the worker."""
        if self._link.connection.process.is_copy:
            raise self._link.connection.ended()

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
            self._own_arrays[id(array)] = _Own(weakref.ref(array), array.dtype, extent.place)
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
            for key in [key for key, own in self._own_arrays.items() if own.array() is None]:
                del self._own_arrays[key]

    def _grow(self, size: int) -> Segment:
        return self._add_segment(size, min(self._arena.size, _LARGEST_GROWTH))

    def _add_segment(self, size: int, room_to_grow: int) -> Segment:
        segment = self._memory.create(size, room_to_grow=room_to_grow)
        self._maps = {**self._maps, _address(np.frombuffer(segment.map, np.uint8)): segment}
        return segment

    def _forget_segments(self) -> None:
        self._packer.close()
        for segment in self._arena.segments.values():
            self._memory.forget(segment)

    def _out_of_memory(self, link: _Link, error: NoRoom) -> OutOfSharedMemory:
        return OutOfSharedMemory(
            f"model {self.name!r}: {error}; {len(self._lent)} arrays from empty() are held, {link.connection.holders()}. "
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


def _address(array: np.ndarray[Any, Any]) -> int:
    """Where a C-contiguous array begins in memory."""
    try:
        # A third of the cost of __array_interface__.
        return _addressof(_byte_at(array))  # type: ignore[arg-type]
    except TypeError:  # read-only
        return int(array.__array_interface__["data"][0])
