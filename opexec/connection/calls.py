"""Calls in flight: which wait for an answer, which nobody waits for any more, and what happens when an answer has come.

Any thread may be interrupted anywhere (Ctrl-C). Each step here can therefore be taken twice to the same effect, or is one operation that
the interpreter does not divide (`dict.pop`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..errors import OpexecError
from ..ipc import wire
from ..ipc.packer import Block, Packer
from ..ipc.plan import Plan
from .output_memory import Foreseen, OutputMemory
from .timing import CallTimes


class Again(Exception):
    """A call was not answered because its worker has gone, and is to be made again with another one.

    `error` is why; `sent` whether a worker may have begun it; `deadline` its deadline, where it is known.
    """

    def __init__(self, error: OpexecError, sent: bool, deadline: float | None) -> None:
        super().__init__(error)
        self.error = error
        self.sent = sent
        self.deadline = deadline


class Call:
    """One call. A thread waits for it, or `finish` is told, in the thread that reads the answer, that it has ended."""

    id = 0
    #: The record that answers it, and the record's plan, which is there whenever the record is.
    answer: tuple[int, ...] | None = None
    plan: Plan = None  # type: ignore[assignment]
    #: What the answer may well be, made while the worker works.
    foreseen: Foreseen | None = None
    failure: BaseException | None = None
    #: What the waiting thread sleeps on while another one reads.
    parked: threading.Lock | None = None
    finish: Callable[[Call], None] | None = None
    #: Its arrays have been made: from then on their leases tell when the worker may have the block back. Only said where the call may still fail.
    lent = False
    #: By `time.monotonic`: when it ends, and when the thread that waits for it goes.
    deadline: float | None = None
    until: float | None = None
    #: Where the tensors outside the block lie, and the caller's arrays there: alive for as long as the worker may read them.
    places: tuple[int, ...] = ()
    keep: Any = None
    #: `wire.TIMED` if the moments of this call are to be kept in `times`; `began` and `sent` by `timing.now`.
    #: It stands for `stands_for` calls, those that were not timed included, and was behind so many others.
    timed = 0
    stands_for = 1
    behind = 0
    began = 0
    sent = 0
    times: CallTimes | None = None

    def __init__(self, block: Block) -> None:
        #: The inputs; None once the worker looks at them no more.
        self.block: Block | None = block
        self.stock = block.stock

    def tell(self) -> None:
        """It has ended: tell whoever waits."""
        if self.finish is not None:
            self.finish(self)
        self.wake()

    def wake(self) -> bool:
        """Wake the thread that waits, for it to look around; False if none sleeps."""
        parked = self.parked
        if parked is None:
            return False
        try:
            parked.release()
        except RuntimeError:  # by an answer and a hand-over at once
            pass
        return True


class InFlight:
    """The calls of one connection. Answers are settled by one thread at a time, the holder of the reader's role."""

    def __init__(self, packer: Packer, outputs: OutputMemory) -> None:
        self.pending: dict[int, Call] = {}
        #: An answer that was taken from the ring by a thread that did not come to settle it.
        self.unsettled: tuple[int, ...] | None = None
        self.copied_out = 0
        #: Those whose threads sleep while another one reads.
        self.parked: dict[Call, threading.Lock] = {}
        self._discarded: dict[int, Call] = {}
        self._packer = packer
        self._outputs = outputs

    def expects(self, id: int) -> bool:
        """Whether an answer to call `id` is still to come."""
        return id in self.pending or id in self._discarded

    def awaits(self, id: int) -> bool:
        """Whether somebody waits for call `id`."""
        return id in self.pending

    def was_abandoned(self, call: Call) -> bool:
        """Whether nobody waits for `call`, and the worker has not answered it."""
        return self._discarded.get(call.id) is call

    @property
    def unanswered(self) -> int:
        """How many calls the worker has still to answer, whether somebody waits for them or not."""
        return len(self.pending) + len(self._discarded)

    def settle(self, record: tuple[int, ...]) -> None:
        """The answer in `record` has been noted with its call: wake who waits for it, and free what it held."""
        call = self.pending.get(record[1])
        if call is not None:
            if call.finish is not None or call.parked is not None:
                call.tell()
            if self.pending.pop(record[1], None) is not None:
                self.copied_out += record[5]
                # Taken in one step: whoever else comes to free it finds it gone.
                block, call.block, call.keep = call.block, None, None
                if block is not None:
                    self._packer.give(block)
                self.unsettled = None
                return
        call = self._discarded.pop(record[1], None)
        if call is not None:
            if record[0] == wire.RESULT:
                self._outputs.forfeit(record[3])
            self._free(call)
        self.unsettled = None

    def abandon(self, call: Call) -> None:
        """Nobody waits for `call` any more: its late answer will be discarded, and its memory freed then."""
        if not call.id:
            self._free(call)
            return
        # Once: who cancels a call may meet its deadline. The second time it would look as if the answer had come.
        mine = object()
        if call.__dict__.setdefault("abandoned", mine) is not mine:
            return
        self._discarded[call.id] = call
        if self.pending.pop(call.id, None) is None and self._discarded.pop(call.id, None) is not None:
            # Its answer came in this very moment, and nobody will look at it.
            if call.answer is not None and not call.lent:
                self._outputs.forfeit(call.answer[3])
            self._free(call)

    def fail_all(self, error: Callable[[], OpexecError]) -> None:
        """End every call that has no answer yet with an error of its own."""
        for call in list(self.pending.values()):
            if call.answer is None:
                call.failure = error()
            call.tell()
            if self.pending.pop(call.id, None) is not None:
                self._free(call)
        for id in list(self._discarded):
            discarded = self._discarded.pop(id, None)
            if discarded is not None:
                self._free(discarded)

    def wake_one(self) -> bool:
        """Wake a thread that sleeps; False if none does."""
        for call in list(self.parked):
            if call.id in self.pending and call.wake():
                return True
        return False

    def _free(self, call: Call) -> None:
        block, call.block, call.keep = call.block, None, None
        if block is not None:
            self._packer.give(block)
