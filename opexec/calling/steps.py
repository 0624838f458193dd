"""The steps of one call to a worker: its inputs into shared memory, over, and its outputs checked; and what a failure means.

What is here is the hot path of `isolated.IsolatedModel`, which says how the steps are put together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from ..connection import Connection
from ..connection.calls import Again, Call
from ..connection.timing import Sampler, assembled, now
from ..errors import CallTimeout, ModelClosed, OutOfSharedMemory, SpecError, WorkerDied
from ..errors import ProtocolError as ProtocolFault
from ..ipc import wire
from ..ipc.arena import NoRoom
from ..ipc.faults import ProtocolError
from ..ipc.packer import Block, Packer
from ..model import Model, subset
from ..spec import bind_inputs, bind_outputs
from ..supervision.link import Link
from ..supervision.replicas import Replicas
from ..workers.structure import Structure, unflatten
from .array_kinds import ArrayKind, kind_of
from .arrays import to_numpy
from .input_memory import InputMemory
from .signature import check_names, check_texts, signatures

_APPROVED_KEPT = 4096
#: No input lies in shared memory already: neither their indices nor their places.
_NONE_OUTSIDE: tuple[tuple[int, ...], tuple[int, ...]] = (), ()
#: Where a result's structure is kept in its plan's memo, beside the inputs it was found to fit.
_STRUCTURE = "structure"


class CallSteps(Model):
    """See the module. The attributes are those of `IsolatedModel`, which sets them."""

    replicas: Replicas
    sampler: Sampler
    _check: bool
    _checks_outputs: bool
    _timeout: float | None
    retries: int
    _closed: bool
    _input_memory: InputMemory
    _packer: Packer

    def _due(self, timeout: float | None) -> float | None:
        """When a call with that timeout is to end."""
        if timeout is None:
            timeout = self._timeout
        return None if timeout is None else deadline_in(timeout)

    # The way in

    def _prepare(
        self, link: Link, names: tuple[str, ...], values: list[Any], positional: int, timeout: float | None
    ) -> tuple[Call, ArrayKind | None]:
        """Put the inputs into shared memory; the call is then ready to be sent."""
        connection = link.connection
        if self._closed or connection.dead is not None:
            self._refuse(link)
        began = stands_for = 0
        if (
            connection.sent >= connection.next_timed
        ):  # when it is sent, and not when it has ended: many may be under way
            began, stands_for = now(), 1 + connection.left_out
            connection.left_out = self.sampler.left_out
            connection.next_timed = connection.sent + 1 + connection.left_out
        if timeout is None:
            timeout = self._timeout
        deadline = None if timeout is None else deadline_in(timeout)
        kind = block = None
        memory = self._input_memory
        found: tuple[tuple[int, ...], tuple[int, ...]] | None = _NONE_OUTSIDE
        if memory.lends and not memory.copies_all(len(values)):
            found = memory.find_again(values, link.aligned)
        if found is not None:
            block = self._packer.pack_again(names, values, positional, found[0])
        if found is None or block is None:
            call, kind = self._pack(link, names, values, positional)
        else:
            call = Call(block)
            if found[1]:
                call.places, call.keep = found[1], values
        call.deadline = deadline
        if began:
            call.began, call.stands_for, call.behind = began, stands_for, len(connection.pending)
            call.timed = wire.TIMED
        return call, kind

    def _pack(
        self, link: Link, names: tuple[str, ...], values: list[Any], positional: int
    ) -> tuple[Call, ArrayKind | None]:
        """Put inputs of any kind into shared memory, except those that lie there."""
        kind = None
        outside: tuple[int, ...] = ()
        places: tuple[int, ...] = ()
        for value in values:
            if type(value) is not np.ndarray:
                values, kind = self._convert(names, values)
                break
        if self._input_memory.lends:
            outside, places = self._input_memory.find(values, link.aligned)
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
        """Send a prepared call. Raises Again if it was not sent because its worker has gone."""
        try:
            return link.connection.send(call)
        except BaseException as error:
            link.connection.calls.abandon(call)
            if not call.id:
                self._recover(link, call, error)
            raise

    def _convert(self, names: tuple[str, ...], values: list[Any]) -> tuple[list[Any], ArrayKind | None]:
        specs = {} if self.inputs is None else {spec.name: spec for spec in self.inputs}
        return [
            to_numpy(value, specs.get(name), name) for name, value in zip(names, values, strict=True)
        ], kind_of(values)

    # There and back

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
            if isinstance(error, WorkerDied) and (self.retries if tries is None else tries):
                raise Again(error, True, call.deadline) from None

    def _views(self, link: Link, call: Call) -> list[Any]:
        """The arrays of an answered call, checked against the spec."""
        seen = now() if call.timed else 0
        views = link.connection.arrays(call)
        if self._checks_outputs and call.stock not in call.plan.memo:
            call.lent = True
            self._check_outputs(call, views)
        if seen:
            self._keep_times(link.connection, call, seen)
        return views

    def _keep_times(self, connection: Connection, call: Call, seen: int) -> None:
        assert call.answer is not None
        call.times = assembled(call.began, call.sent, call.answer, seen, now())
        beside = max(call.behind, connection.sent - call.id)
        self.sampler.add(call.times, call.stands_for, 1 + beside)

    def _results(
        self, link: Link, call: Call, kind: ArrayKind | None, outputs: Sequence[str] | None
    ) -> dict[str, Any]:
        try:
            views = self._views(link, call)
        except BaseException:  # no memory for its texts, say: the worker may have the block back
            link.connection.calls.abandon(call)
            raise
        results = dict(zip(call.plan.names, views))
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

    # Refusing

    def _is_closed(self) -> ModelClosed:
        return ModelClosed(f"model {self.name!r} is closed; load it again to call it")

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


def deadline_in(timeout: float) -> float:
    """The time by `time.monotonic` that is `timeout` seconds from now."""
    try:
        deadline = time.monotonic() + timeout
    except TypeError:
        deadline = math.nan
    if math.isnan(deadline):
        raise ValueError(f"timeout is {timeout!r}; expected a number of seconds, or None")
    return deadline


def time_left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)
