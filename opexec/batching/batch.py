"""The calls of one batch, and the call to the worker that they make together."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calling.array_kinds import ArrayKind
from ..calling.futures import Submission, end_cancelled
from ..connection.calls import Call
from ..supervision.link import Link
from .room import Room
from .seam import Tensors, at

if TYPE_CHECKING:
    from .batcher import Batcher


class Cancelled(Exception):
    """Nobody waits for a joint call any more."""


#: Told of a joint call's end: its outputs, or what it failed with.
Answered = Callable[["JointCall", BaseException | None, dict[str, np.ndarray[Any, Any]]], None]


class JointCall(Submission):
    """A call to the worker with the rows of a batch. Nobody changes these until it has ended, so no copy of them is ever kept.

    `answered` is told of its end, in the place of its Future: a Future would keep the outputs until a garbage collection.
    """

    link: Link
    call: Call
    watched = True

    def __init__(
        self,
        batcher: Batcher,
        names: tuple[str, ...],
        deadline: float | None,
        answered: Answered,
    ) -> None:
        super().__init__(batcher.model, names, [], None, deadline, batcher.retries)
        self._kept = True
        self._told: Answered | None = answered

    def start_with(self, values: list[Any]) -> None:
        """Send the call with these inputs, or have it sent once a worker is there."""
        self._values = values
        self.start()

    def give_up(self) -> None:
        """Nobody waits for it; it has ended, if it had not before."""
        if self.cancel():
            self._end(Cancelled(), None)

    def _answered(self, link: Link, call: Call, kind: ArrayKind | None) -> dict[str, Any]:
        self.link, self.call = link, call
        return super()._answered(link, call, kind)

    def _end(self, error: BaseException | None, results: dict[str, Any] | None) -> None:
        self._leave()
        self.future._submission = None
        told, self._told = self._told, None
        if told is not None:
            told(self, error, results or {})


class Part:
    """What one call gets of the answer to its batch: `views` of its rows, by the name of the output.

    Each keeps the memory of the whole answer, as any view does.
    """

    def __init__(
        self,
        batcher: Batcher,
        joint: JointCall,
        results: dict[str, np.ndarray[Any, Any]],
        start: int,
        rows: int,
    ) -> None:
        axes = batcher.seam.outputs
        self.views = {name: array[at(axes[name], start, start + rows)] for name, array in results.items()}
        self._batcher = batcher
        self._joint = joint

    def structured(self, kind: ArrayKind | None) -> Any:
        """As the model returned it."""
        joint = self._joint
        return self._batcher.model._rebuild(joint.link, joint.call, kind, list(self.views.values()))


class JoinedCall(Future[Any]):
    """A call that is answered with others. It can be cancelled until it has its answer; one that waits is then taken out of its batch.

    `finish` makes the result; `deadline` is by `time.monotonic`.
    """

    #: The batch that it is in until it has its outcome, its place there and how much it takes up.
    batch: Batch | None = None
    sent = False
    start = 0
    rows = 0
    #: Inputs that lie in no room: texts.
    texts: dict[str, np.ndarray[Any, Any]]
    #: It has its outcome, or is about to be given it. Set once, under the batcher's lock.
    ended = False
    #: It was taken out of its batch because it is cancelled.
    withdrawn = False

    def __init__(
        self, batcher: Batcher, finish: Callable[[Part], Any], deadline: float | None, since: int = 0
    ) -> None:
        super().__init__()
        self._batcher = batcher
        self._finish = finish
        self.deadline = deadline
        #: Since when it waits to be sent, by `timing.now`: for a seat, or else for its batch.
        self.since = since

    def cancel(self) -> bool:
        try:
            if not self._batcher.withdraw(self, cancelled=True) and not self.withdrawn:
                return self.cancelled()
            end_cancelled(self)
        except BaseException:  # Ctrl-C: what has begun to be cancelled must not be waited for without end
            if self._batcher.withdraw(self, cancelled=True) or self.withdrawn:
                end_cancelled(self)
            raise
        return True

    def succeed(self, joint: JointCall, results: dict[str, np.ndarray[Any, Any]], start: int) -> None:
        """It has ended, with its rows of an answer."""
        try:
            result = self._finish(Part(self._batcher, joint, results, start, self.rows))
        except BaseException as error:
            self.fail(error)
        else:
            self._tell(self.set_result, result)

    def fail(self, error: BaseException) -> None:
        """It has ended badly."""
        self._tell(self.set_exception, error)

    def _tell(self, tell: Callable[[Any], None], outcome: Any) -> None:
        self.set_running_or_notify_cancel()
        try:
            tell(outcome)
        except BaseException:
            # Of a user's callback: sys.exit(), say; the other calls of the batch must have their outcome.
            traceback.print_exc()


class Batch:
    """Calls that are joined, in a room. All is under the batcher's lock until the batch is sent."""

    def __init__(self, tensors: Tensors, room: Room) -> None:
        self.key = tensors.key
        self.names = tensors.names
        self.room = room
        self.calls: list[JoinedCall] = []
        self.rows = 0
        #: How many calls are being copied into the room.
        self.copying = 0
        self.joint: JointCall | None = None
        self.cancelled = False

    def add(self, call: JoinedCall, tensors: Tensors) -> None:
        call.batch, call.start, call.rows = self, self.rows, tensors.rows
        self.rows += tensors.rows
        self.calls.append(call)

    @property
    def empty(self) -> bool:
        """Whether nobody waits for its answer."""
        return all(call.ended for call in self.calls)

    def close_gaps(self) -> int:
        """Forget the calls that were taken out, and move the rows behind them; returns how many bytes that were. Before it is sent."""
        self.calls = [call for call in self.calls if not call.ended]
        copied = rows = 0
        for call in self.calls:
            if call.start != rows:
                copied += self.room.move(call.start, call.rows, rows)
                call.start = rows
            rows += call.rows
        self.rows = rows
        return copied

    def values(self, calls: Sequence[JoinedCall], axes: Mapping[str, int]) -> list[np.ndarray[Any, Any]]:
        """The inputs of neighbouring calls."""
        start, stop = calls[0].start, calls[-1].start + calls[-1].rows
        return [
            self.room.part(name, start, stop)
            if name in self.room.arrays
            else np.concatenate([call.texts[name] for call in calls], axes[name])
            for name in self.names
        ]
