"""Waiting for answers, in threads: the first to wait reads for all (`reader_role`), the others sleep until theirs is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

from ..errors import CallTimeout
from ..ipc import wire
from ..ipc.faults import ProtocolError
from ..ipc.packer import Packer
from ..ipc.strategies import Adaptive, Block, Spin
from .calls import Call
from .reading import Reading

#: A sleeping reader looks again this often, in milliseconds, though nothing should make it.
_LOOK_AGAIN_MS = 100
#: A thread that waits for another one to read looks this often, in seconds, whether the role is free.
_FOLLOW_S = 0.05


class Waiting(Reading):
    """See the module."""

    #: How long a reader looks for an answer before it sleeps.
    _strategy: Adaptive | Block | Spin
    _packer: Packer
    #: Told of a call for which no thread waits when its deadline has passed.
    overdue: Callable[[Call], None] | None = None

    def wait(self, call: Call, woke: bool) -> None:
        """Wait until `call` has an answer or a failure. Raises the failure, or CallTimeout past the call's deadline."""
        role, holder, consumer = self.role, self.role.holder, self.channel.consumer
        try:
            if holder.setdefault(0, call) is call:
                if role.announced:
                    role.withdraw()
                calls = self.calls
                if calls.unsettled is not None:
                    self._finish_delivery()
                # Whoever read before may have read this call's answer.
                if call.answer is None and call.failure is None:
                    if self._strategy.ready(
                        consumer.words, consumer.tail_at, consumer.head, woke, call.deadline
                    ):
                        # Mostly the next record is this call's result: `_deliver` and `settle`, spelled out for it.
                        record = consumer.peek(wire.HEAD)
                        plan = None
                        if record is not None and record[1] == call.id and record[0] == wire.RESULT:
                            plan = self.channel.plans.get(record[2])
                        if record is None or plan is None:
                            self._deliver()
                        else:
                            call.plan = plan
                            call.answer = calls.unsettled = record
                            consumer.advance()
                            if self.pending.pop(record[1], None) is not None:
                                calls.copied_out += record[5]
                                block, call.block, call.keep = call.block, None, None
                                if block is not None:
                                    self._packer.give(block)
                            calls.unsettled = None
                    else:
                        self.sleep(self._timeout_ms(call))
                        self._strategy.slept()
                    if call.answer is None:
                        self._read_for(call)
        except ProtocolError as error:
            self.broken(error)
        finally:
            try:
                if holder.get(0) is call:
                    del holder[0]
                    if self.pending:
                        role.hand_over()
            except BaseException:
                # Ctrl-C in this very moment: nobody must wait for ever for a reader that is none.
                role.drop(call)
                raise
        # Of a call that has failed meanwhile, an answer is not to be trusted: its block may have been given to another.
        if call.answer is None or call.failure is not None:
            self._wait_on(call)

    def _wait_on(self, call: Call) -> None:
        """`wait`, where others read too."""
        role = self.role
        while call.answer is None and call.failure is None:
            try:
                if role.take(call):
                    if self.calls.unsettled is not None:
                        self._finish_delivery()
                    self._read_for(call)
                else:
                    self._follow(call)
            finally:
                try:
                    role.leave(call)
                except BaseException:  # Ctrl-C in this very moment
                    role.drop(call)
                    raise
        if call.failure is not None:
            raise call.failure

    def _read_for(self, call: Call) -> None:
        """Read until `call` has an answer or a failure. For the holder of the reader's role."""
        consumer, ready = self.channel.consumer, self._strategy.ready
        while call.answer is None and call.failure is None:
            if ready(consumer.words, consumer.tail_at, consumer.head, False, call.deadline):
                self._deliver()
            else:
                self.sleep(self._timeout_ms(call))
                self._strategy.slept()

    def attend(self, call: Call, until: float | None) -> bool:
        """`wait` in a thread that may go before: False if `until` (by `time.monotonic`) has passed. Raises nothing that the call ends with.

        For one thread at a time.
        """
        role, consumer, ready = self.role, self.channel.consumer, self._strategy.ready
        call.until = until
        end = min(call.deadline, until) if call.deadline and until else call.deadline or until
        while call.answer is None and call.failure is None:
            try:
                reads = role.take(call)
                if reads:
                    self.read_available()
                    if call.answer is not None or call.failure is not None:
                        break
                if until is not None and until <= time.monotonic():
                    return False
                if not reads:
                    self._follow(call)
                elif not ready(consumer.words, consumer.tail_at, consumer.head, False, end):
                    self.sleep(self._timeout_ms(call))
                    self._strategy.slept()
            except CallTimeout:
                self.expire(call)
            finally:
                try:
                    role.leave(call)
                except BaseException:  # Ctrl-C in this very moment
                    role.drop(call)
                    raise
        return True

    def _follow(self, call: Call) -> None:
        """Wait until the reader has the answer, or leaves."""
        timeout_ms = self._timeout_ms(call)
        parked = threading.Lock()
        parked.acquire()
        call.parked = self.calls.parked[call] = parked
        try:
            reader = self.role.holder.get(0)
            if reader is not None and call.answer is None and call.failure is None:
                if getattr(reader, "yields_role", False):
                    self.channel.bell.ring_own()
                parked.acquire(timeout=min(_FOLLOW_S, timeout_ms / 1000))
        finally:
            call.parked = None
            self.calls.parked.pop(call, None)

    def _make_room(self, call: Call) -> None:
        """The ring is full: read until an answer has made room, or wait for whoever reads, for a moment or until the call's deadline."""
        timeout_ms = self._timeout_ms(call)
        if self.role.take(call):
            try:
                self.read_available()
                self.sleep(min(timeout_ms, 1))
            finally:
                self.role.leave(call)
        else:
            time.sleep(0.001)

    def _timeout_ms(self, call: Call) -> int:
        """How long whoever waits for `call` may sleep. Raises CallTimeout past its deadline."""
        if call.deadline is None and call.until is None:
            return _LOOK_AGAIN_MS
        moment = time.monotonic()
        if call.deadline is not None and call.deadline <= moment:
            raise self._late()
        end = min(time for time in (call.deadline, call.until) if time is not None)
        return int(min(max(end - moment, 0) * 1000 + 1, _LOOK_AGAIN_MS))

    def _late(self) -> CallTimeout:
        return CallTimeout(
            f"worker {self.process.name!r} did not answer within the call's timeout; it goes on with the call for as long as "
            "`grace` allows, and the late answer will be discarded"
        )

    # Ending calls

    def expire(self, call: Call) -> None:
        """End `call`, for which no thread waits, if its deadline has passed."""
        if call.deadline is not None and call.deadline <= time.monotonic():
            if self.give_up(call, self._late()) and self.overdue is not None:
                self.overdue(call)

    def give_up(self, call: Call, error: BaseException) -> bool:
        """End `call`, for which no thread waits, with `error`; False if it has ended, or is not sent yet."""
        with self._sending:  # inside, a call that finds the ring full looks for a moment as if it were sent
            if self.pending.get(call.id) is not call or call.answer is not None:
                return False
            # First: whoever reads may note the answer in this very moment, and nobody may take that for good.
            call.failure = error
            self.calls.abandon(call)
        if call.finish is not None:
            call.finish(call)
        return True

    def dismiss(self, call: Call) -> None:
        """Nobody waits for `call` any more, and a thread that does goes (`attend`)."""
        self.calls.abandon(call)
        call.failure = call.failure or CancelledError()
        call.wake()
        if self.role.holder.get(0) is call:
            self.channel.bell.ring_own()

    def unread(self) -> MemoryError:
        """The failure of a call whose answer there is no memory to read."""
        return MemoryError("there was no memory to read the worker's answers")

    def unheard(self) -> CallTimeout:
        """The failure of a call that could not be sent until its deadline."""
        return CallTimeout(
            f"worker {self.process.name!r} has as many calls as fit, or takes no messages, and the call's timeout has passed: it was not sent"
        )
