"""Reading what a worker sends: answers, messages, and that it has died. Done by whoever has the reader's role (`reader_role`)."""

from __future__ import annotations

import time
from typing import Any

from ..errors import ModelError, OpexecError, OutOfSharedMemory
from ..ipc import faults, wire
from ..ipc.channel import close_all
from ..processes import leaving
from .calls import Call
from .ending import Ending

#: What a worker says of an exception.
_ERROR_PARTS = ("type", "message", "traceback")


class Reading(Ending):
    """See the module."""

    #: What the worker said of calls that failed, until the record that tells of each is read.
    _failures: dict[int, dict[str, Any]]
    #: The worker has gone, and a thread sees to its end.
    going = False

    def read_available(self) -> None:
        """Deliver all answers that are there. For the holder of the reader's role."""
        consumer = self.channel.consumer
        if self.calls.unsettled is not None:
            self._finish_delivery()
        while self.dead is None and consumer.words[consumer.tail_at] != consumer.head:
            self._deliver()

    def sleep(self, timeout_ms: int) -> None:
        """Sleep until there is something to read, or to look at. For the holder of the reader's role."""
        bell = self.channel.bell
        self.look_around(bell.sleep(self.channel.consumer.head, timeout_ms))
        if bell.overslept and self.pending:
            bell.ring_again()  # for a worker that sleeps though it has calls: a ring may have been lost

    def catch_up(self) -> bool:
        """Take in what lies there, if nobody reads; True if the worker had asked for room, and waited for it."""
        reader = object()
        if self.dead is not None or not self.role.take(reader):
            return False
        try:
            before = self.outputs.asked
            self.look_around([self.channel.control.fileno()])
            self.read_available()
            return self.outputs.asked != before
        finally:
            self.role.leave(reader)

    def look_around(self, ready: list[int]) -> None:
        """Handle what made the reader wake up besides its bell: control messages, or the worker's end."""
        if not ready and not self.channel.control.pending():
            return
        try:
            self.channel.handle_control()
            if self.process.pidfd in ready:
                self._see_to_the_end()
        except faults.PeerGone:
            self._see_to_the_end()
        except faults.ProtocolError as error:
            self.broken(error)

    @property
    def _reader_must_not_wait(self) -> bool:
        return bool(getattr(self.role.holder.get(0), "must_not_wait", False))

    # Answers

    def _deliver(self) -> None:
        consumer = self.channel.consumer
        try:
            record = consumer.peek(wire.HEAD)
            if record is None:
                return
            id = record[1]
            call = self.pending.get(id)
            if call is None and not self.calls.expects(id):
                raise faults.ProtocolError(f"an answer to call {id}, which is not waiting for one")
            if record[0] == wire.RESULT:
                if call is not None:
                    call.plan = self.channel.plans.get(record[2]) or self.channel.plan(record[2])
                    call.answer = record
            elif record[0] == wire.FAILURE:
                self._take_failure(id, call)
            else:
                raise faults.ProtocolError(f"a record of kind {record[0]}; expected a result or a failure")
        except faults.ProtocolError as error:
            self.broken(error)
            return
        except faults.PeerGone:
            self._died()
            return
        # This thread may be interrupted anywhere (Ctrl-C). Up to here the record stays and is read again; from here on the next
        # reader finds in `unsettled` what is to be finished.
        self.calls.unsettled = record
        consumer.advance()
        self.calls.settle(record)
        if record[0] == wire.FAILURE:
            self._failures.pop(id, None)

    def _finish_delivery(self) -> None:
        """Finish what a reader that was interrupted has begun."""
        record = self.calls.unsettled
        assert record is not None
        try:
            next = self.channel.consumer.peek(wire.HEAD)
        except faults.ProtocolError as error:
            self.broken(error)
            return
        if next is not None and next[1] == record[1]:
            self.channel.consumer.advance()
        self.calls.settle(record)
        self._failures.pop(record[1], None)

    def _take_failure(self, id: int, call: Call | None) -> None:
        if id not in self._failures:
            self.channel.handle_control()
        message = self._failures.get(id)
        if message is None:
            raise faults.ProtocolError(f"call {id} failed without a message that says why")
        if call is None:
            return
        error = message["error"]
        if message.get("kind") == "room":
            call.failure = OutOfSharedMemory(f"no room for the outputs: {error['message']}; {self.holders()}")
        else:
            call.failure = ModelError(error["type"], error["message"], error["traceback"])

    # Messages

    def _on_message(self, message: dict[str, Any], fds: list[int]) -> None:
        kind = message["type"]
        close_all(fds)  # none belongs to any of these
        if kind == "failure":
            error = message.get("error")
            if not isinstance(error, dict) or not all(
                isinstance(error.get(part), str) for part in _ERROR_PARTS
            ):
                raise faults.ProtocolError(f"a failure message whose error is {error!r}")
            self._failures[_positive(message, "id")] = message
        elif kind == "need":
            size, spare = _positive(message, "bytes"), message.get("spare") is True
            if not self._reader_must_not_wait or not self._in_thread("room", self._give_room, size, spare):
                self.outputs.give_room(size, spare=spare)
        elif kind == "broken":
            raise faults.ProtocolError(f"the worker gave up: {message.get('why')}")
        else:
            raise faults.ProtocolError(f"a control message of type {kind!r}, which a caller does not know")

    def _give_room(self, size: int, spare: bool) -> None:
        """`give_room`, in a thread: creating much takes long, and a worker that was stopped takes no messages."""
        try:
            self.outputs.give_room(size, spare=spare)
        except faults.PeerGone:  # who reads is told
            pass
        except Exception as error:  # the worker would wait for it without end
            self.condemn(f"it asked for {size} bytes of shared memory, and giving them failed: {error}")

    def holders(self) -> str:
        """Who holds output blocks, for messages."""
        held = len(self.outputs.leases)
        return (
            f"{held} output blocks are held by arrays of the caller, {len(self.pending)} calls are in flight"
        )

    # A worker that has died

    def bury(self) -> OpexecError:
        """See to the end of a worker that has died, whoever else does; returns why it did."""
        gravedigger = object()
        while self.dead is None:
            if self.role.take(gravedigger):
                try:
                    self._bury()
                finally:
                    self.role.leave(gravedigger)
            else:
                time.sleep(0.001)  # the reader sees it, too
        return self.ended()

    def bury_aside(self) -> bool:
        """`bury`, in a thread: it may take a second or more to learn why a worker has gone. False if there is no thread to be had."""
        if not self.going:
            self.going = self._in_thread("burying", self.bury)
        return self.going

    def _see_to_the_end(self) -> None:
        if not self._reader_must_not_wait or not self.bury_aside():
            self._bury()

    def _bury(self) -> None:
        """The worker is gone, but what it answered before is good."""
        leaving.hold()
        if self.dead is None:
            self.read_available()
            self._died()


def _positive(message: dict[str, Any], field: str) -> int:
    value = message.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise faults.ProtocolError(
            f"a {message['type']} message whose {field} is {value!r}; expected a positive integer"
        )
    return value
