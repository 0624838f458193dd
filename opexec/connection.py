"""The caller's end of one worker: calls in flight, who reads their answers, and what happens when the worker dies.

Any number of threads call at once. Each sends under a short lock and then waits without one. Whoever waits first reads the answers of
everybody (`reader_role`).
"""

from __future__ import annotations

import atexit
import copy
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from . import leaving
from .calls import Call, InFlight
from .errors import CallTimeout, ModelError, OpexecError, OutOfSharedMemory, ProtocolError
from .ipc import PROTOCOL, faults, wire
from .ipc.channel import Channel, close_all, time_left
from .ipc.control import under
from .ipc.doorbell import Block, strategy
from .ipc.packer import Block as PackedBlock
from .ipc.packer import Packer
from .ipc.plan import Plan
from .ipc.ring import CALLER, CHANNEL_BYTES, WORKER, write_header
from .memory import SharedMemory
from .output_memory import OutputMemory
from .reader_role import ReaderRole
from .timing import now
from .worker import WorkerProcess

#: A sleeping reader looks again this often, in milliseconds, though nothing should make it.
_LOOK_AGAIN_MS = 100
#: A thread that waits for another one to read looks this often, in seconds, whether the role is free.
_FOLLOW_S = 0.05

#: How long, in seconds, a worker's control socket may take no message from `let_in`.
_LET_IN_S = 1.0

#: A deadline of what is not to be waited for.
_AT_ONCE = 0.0

#: What a worker says of an exception.
_ERROR_PARTS = ("type", "message", "traceback")

#: Has the reader's role once the connection is closed.
_THE_END = object()

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    """Sends calls to a worker process and reads their answers."""

    def __init__(self, process: WorkerProcess, packer: Packer, memory: SharedMemory, wait: str) -> None:
        self.process = process
        self.dead: OpexecError | None = None
        #: Why this side had the worker killed, if it did.
        self.condemned = ""
        #: The worker has gone, and a thread sees to its end.
        self.going = False
        #: Told of a call for which no thread waits when its deadline has passed.
        self.overdue: Callable[[Call], None] | None = None
        self.sent = 0
        #: The number of the next call that is timed.
        self.next_timed = 0
        self.copied_in = 0
        #: Other processes were let in (`let_in`), whose calls `sent` does not count.
        self.has_clients = False
        self._packer = packer
        self._memory = memory
        self._failures: dict[int, dict[str, Any]] = {}
        self._sending = threading.Lock()
        self._offering = threading.Lock()
        self._offered: set[int] = set()
        self._closed = False
        self._segment = memory.create(CHANNEL_BYTES)  # first: it may raise NoRoom
        self._fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2)]
        write_header(self._segment.map, PROTOCOL)
        connection = weakref.proxy(self)  # no cycle: what nobody holds goes at once, with its memory
        self.channel = Channel(
            self._segment.map,
            CALLER,
            WORKER,
            process.control,
            (self._fds[0], self._fds[1]),
            lambda message, fds: connection._on_message(message, fds),
            attaches=False,
            behind_lock=True,
        )
        self.channel.bell.watch(process.pidfd)
        # A thread that sends takes in what comes meanwhile: then the reader, asleep, must be told that it is here.
        process.control.on_buffered = self.channel.bell.ring_own
        # Of a model that nobody closed.
        # Not at the interpreter's exit: daemon threads may still sleep on them.
        weakref.finalize(self.channel.bell, _close, self.channel.bell.descriptors).atexit = False
        self.outputs = OutputMemory(self.channel, memory, self._sending)
        self.calls = InFlight(packer, self.outputs)
        self.pending = self.calls.pending
        self.role = ReaderRole(self.calls, self.channel.bell)
        self._strategy = strategy(wait)
        self._wait = wait
        _connections.add(self)

    # Starting

    def open(self, load: dict[str, Any], deadline: float | None) -> dict[str, Any]:
        """Give the worker its channel, its segments and the model to load; returns its ``loaded`` or ``failed`` message.

        Raises WorkerDied, or TimeoutError when `deadline` (by `time.monotonic`) passes first.
        """
        control = self.process.control
        try:
            control.send(
                {"type": "channel", "size": self._segment.size, "wait": self._wait},
                [self._segment.fd, self._fds[0], self._fds[1]],
                time_left(deadline),
            )
            self._offer_segments(deadline)
            self.outputs.open(deadline)
            control.send({"type": "load", **load}, timeout=time_left(deadline))
            while True:
                message, fds = self.process.receive(deadline)
                if message["type"] in ("loaded", "failed"):
                    self.outputs.populate()
                    return message
                self.channel.handle(message, fds)
        except faults.PeerGone:
            raise self.process.death("load") from None
        except faults.ProtocolError as error:
            raise self.broken(error) from error

    # Calling

    def send(self, call: Call) -> bool:
        """Send a call whose block is filled; True if the worker had to be woken. Raises what ended the connection, if it has ended."""
        if self.dead is not None:  # before any lock: in a forked child another thread may hold one for ever
            raise self.ended()
        block = call.block
        assert block is not None
        plan, channel = block.plan, self.channel
        if len(self._offered) != self._packer.arena.count or plan.id not in channel.told:
            try:
                self._introduce(plan, call.deadline)
            except faults.PeerGone:
                raise self.bury() from None
            except TimeoutError as error:
                raise CallTimeout(
                    f"worker {self.process.name!r} takes no messages ({error}), and the call's timeout has passed: it was not sent"
                ) from None
        try:
            while not self._publish(call, block):
                channel.bell.ring()
                self._make_room(call)
        except faults.ProtocolError as error:
            raise self.broken(error) from error
        return channel.bell.ring()

    def try_send(self, call: Call) -> bool:
        """`send`, for who must not wait. False if it would have to: the worker has as many calls as fit, or reads no messages, or has just gone."""
        if self.dead is not None:
            raise self.ended()
        block = call.block
        assert block is not None
        try:
            self._introduce(block.plan, _AT_ONCE)
        except faults.PeerGone:
            if not self.bury_aside():
                self.bury()
            return False
        except TimeoutError:
            return False
        try:
            published = self._publish(call, block)
        except faults.ProtocolError as error:
            raise self.broken(error) from error
        self.channel.bell.ring()
        return published

    def _introduce(self, plan: Plan, deadline: float | None) -> None:
        """See to it that the worker knows the plan, and the segments that a block may lie in. Raises PeerGone or TimeoutError."""
        if len(self._offered) != self._packer.arena.count:
            self._offer_segments(deadline)
        if plan.id not in self.channel.told:
            self.channel.tell(plan, self._packer, deadline)

    def _publish(self, call: Call, block: PackedBlock) -> bool:
        """Put the call into the ring; False if that is full."""
        producer = self.channel.producer
        with self._sending:
            if self.dead is not None:
                raise self.ended()
            if self.outputs.eager and self.outputs.leases.ended:
                self.outputs.collect()
            tail = producer.tail
            self.sent = id = self.sent + 1
            due, self.outputs.due = self.outputs.due, 0
            try:
                self.pending[id] = call
                call.id = id
                outside = call.places
                if block.plan.table >= 0:
                    block.plan.write_table(block.extent.segment.map, block.extent.offset, outside)
                    outside = ()
                published = producer.publish(
                    wire.CALL, id, block.plan.id, block.place, due, call.timed, outside
                )
            finally:
                if producer.tail == tail:  # the ring is full, or this thread was interrupted
                    self.pending.pop(id, None)
                    self.sent -= 1
                    call.id = 0
                    self.outputs.due = due
            # The worker is at it; what follows costs the call nothing.
            if published:
                if call.timed:
                    call.sent = now()
                if due and len(self.pending) == 1:  # of several answers the next is hardly this one's
                    call.foreseen = self.outputs.foresee(due)
                self.copied_in += block.plan.copied
                if self.outputs.leases.ended:
                    self.outputs.collect()
        return published

    def let_in(self, control: int, pidfd: int, tally: int) -> None:
        """Have the worker serve another process too, soon, however many calls wait: over the socket `control`, until `pidfd` tells of its end.

        `tally` is the page on which the worker counts. Raises PeerGone or TimeoutError.
        """
        self.has_clients = True
        self.process.control.send({"type": "attach"}, [control, pidfd, tally], timeout=_LET_IN_S)
        with self._sending:
            if self.dead is None:
                self.channel.producer.publish(wire.LOOK, 0, 0, 0, 0, 0)
        self.channel.bell.ring()

    def _offer_segments(self, deadline: float | None = None) -> None:
        under(self._offering, time_left(deadline), self._offer, deadline)

    def _offer(self, deadline: float | None) -> None:
        for id, segment in self._packer.arena.segments.items():
            if id not in self._offered:
                self.channel.offer(segment, deadline)
                self._offered.add(id)

    def wait(self, call: Call, woke: bool) -> None:
        """Wait until `call` has an answer or a failure. Raises the failure, or CallTimeout past the call's deadline."""
        role, holder, consumer = self.role, self.role.holder, self.channel.consumer
        words, tail_at, ready = consumer.words, consumer.tail_at, self._strategy.ready
        while call.answer is None and call.failure is None:
            try:
                if holder.setdefault(0, call) is call:
                    if role.announced:
                        role.withdraw()
                    if self.calls.unsettled is not None:
                        self._finish_delivery()
                    while call.answer is None and call.failure is None:
                        if ready(words, tail_at, consumer.head, woke):
                            self._deliver()
                        else:
                            self.sleep(self._timeout_ms(call))
                        woke = False
                else:
                    self._follow(call)
            finally:
                try:
                    if holder.get(0) is call:
                        del holder[0]
                        if self.pending:
                            role.hand_over()
                except (
                    BaseException
                ):  # Ctrl-C in this very moment: nobody must wait for ever for a reader that is none
                    role.drop(call)
                    raise
        if call.failure is not None:
            raise call.failure

    def attend(self, call: Call, until: float | None) -> bool:
        """`wait` in a thread that may go before: False if `until` (by `time.monotonic`) has passed. Raises nothing that the call ends with.

        For one thread at a time.
        """
        role, consumer, ready = self.role, self.channel.consumer, self._strategy.ready
        call.until = until
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
                elif not ready(consumer.words, consumer.tail_at, consumer.head, False):
                    self.sleep(self._timeout_ms(call))
            except CallTimeout:
                self.expire(call)
            finally:
                try:
                    role.leave(call)
                except BaseException:  # Ctrl-C in this very moment
                    role.drop(call)
                    raise
        return True

    def dismiss(self, call: Call) -> None:
        """Nobody waits for `call` any more, and a thread that does goes (`attend`)."""
        self.calls.abandon(call)
        call.failure = call.failure or CancelledError()
        call.wake()
        if self.role.holder.get(0) is call:
            self.channel.bell.ring_own()

    def arrays(self, call: Call) -> list[Any]:
        """The tensors of an answered call, in the order of its plan, over shared memory: good for as long as they are held."""
        assert call.answer is not None
        try:
            return self.outputs.lend(call.plan, call.answer[3], call.foreseen)
        except faults.ProtocolError as error:
            raise self.broken(error) from error

    @property
    def rouse(self) -> Callable[[], object] | None:
        """What wakes the worker for a call that is coming; None where that could only get in the way, with a single core."""
        return None if isinstance(self._strategy, Block) else self.channel.bell.rouse

    # Reading

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

    def _see_to_the_end(self) -> None:
        if not self._reader_must_not_wait or not self.bury_aside():
            self._bury()

    @property
    def _reader_must_not_wait(self) -> bool:
        return bool(getattr(self.role.holder.get(0), "must_not_wait", False))

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
            self.calls.abandon(call)
        call.failure = error
        if call.finish is not None:
            call.finish(call)
        return True

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
            size = _positive(message, "bytes")
            if not self._reader_must_not_wait or not self._in_thread("room", self._give_room, size):
                self.outputs.give_room(size)
        elif kind == "broken":
            raise faults.ProtocolError(f"the worker gave up: {message.get('why')}")
        else:
            raise faults.ProtocolError(f"a control message of type {kind!r}, which a caller does not know")

    def _give_room(self, size: int) -> None:
        """`give_room`, in a thread: creating much takes long, and a worker that was stopped takes no messages."""
        try:
            self.outputs.give_room(size)
        except faults.PeerGone:  # who reads is told
            pass
        except Exception as error:  # the worker would wait for it without end
            self.condemn(f"it asked for {size} bytes of shared memory, and giving them failed: {error}")

    def unheard(self) -> CallTimeout:
        """The failure of a call that could not be sent until its deadline."""
        return CallTimeout(
            f"worker {self.process.name!r} has as many calls as fit, or takes no messages, and the call's timeout has passed: it was not sent"
        )

    def holders(self) -> str:
        """Who holds output blocks, for messages."""
        held = len(self.outputs.leases)
        return (
            f"{held} output blocks are held by arrays of the caller, {len(self.pending)} calls are in flight"
        )

    # The end

    def ended(self) -> OpexecError:
        """Why the connection ended, as a new exception: each caller's gets a traceback of its own."""
        leaving.hold()
        assert self.dead is not None
        return copy.copy(self.dead)

    def taken(self) -> tuple[int, ...] | None:
        """The record that the worker took last: it tells what it is at, and, looked at twice, whether it goes on."""
        return self.channel.producer.last_taken(wire.HEAD)

    def condemn(self, why: str) -> None:
        """Kill the worker; the error that its calls fail with says why."""
        self.condemned = self.condemned or why
        self.process.kill()

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

    def _in_thread(self, what: str, do: Callable[..., object], *arguments: object) -> bool:
        """Have a thread do it; False if there can be no more: whoever asks has to do it, and to wait."""
        name = f"opexec-{what}-{self.process.name}"
        try:
            threading.Thread(target=do, args=arguments, name=name, daemon=True).start()
        except (RuntimeError, MemoryError):
            return False
        return True

    def retire(self, error: OpexecError) -> bool:
        """Take no more calls, which fail with `error`, if none is in flight; False if one is. `close` must follow."""
        with self._sending:
            if self.pending:
                return False
            if self.dead is None:
                self.dead = error
            return True

    def _bury(self) -> None:
        """The worker is gone, but what it answered before is good."""
        leaving.hold()
        if self.dead is None:
            self.read_available()
            self._died()

    def _died(self) -> OpexecError:
        if self.dead is None:
            taken = self.channel.producer.last_taken(wire.HEAD)
            busy = taken is not None and taken[0] == wire.CALL and self.calls.expects(taken[1])
            self.end(self.process.death("call" if busy else "idle", self.condemned))
        return self.ended()

    def broken(self, error: Exception) -> OpexecError:
        """Kill a worker that breaks the protocol, and give the error to raise."""
        self.process.kill()
        self.end(
            ProtocolError(
                f"worker {self.process.name!r} (pid {self.process.pid}) broke the protocol and was killed: {error}"
            )
        )
        return self.ended()

    def end(self, error: OpexecError) -> None:
        """End the connection: every call in flight fails with `error`, later ones too."""
        with self._sending:
            if self.dead is not None:
                return
            self.dead = error
        self._dismiss()

    def _dismiss(self) -> None:
        self.calls.fail_all(self.ended)
        self.role.tell_heirs()

    def close(self, error: OpexecError, grace: float) -> None:
        """End the connection and the worker, giving it `grace` seconds to leave by itself. Idempotent."""
        if self._closed or self.process.is_copy or leaving.under_way:
            return
        self.end(error)
        # Whoever still reads must be out of `poll` before the descriptors go.
        self.channel.bell.ring_own()
        give_up = time.monotonic() + 1
        while not self.role.take(_THE_END) and time.monotonic() < give_up:
            time.sleep(0.001)
        self.process.close(grace)
        self._dismiss()  # of a connection that was retired: its abandoned calls kept their memory until here
        self.outputs.close()
        self._memory.forget(self._segment)
        if self.role.holder.get(0) is _THE_END:
            self.channel.bell.close()
        self._closed = True
        _connections.discard(self)


def _positive(message: dict[str, Any], field: str) -> int:
    value = message.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise faults.ProtocolError(
            f"a {message['type']} message whose {field} is {value!r}; expected a positive integer"
        )
    return value


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


@atexit.register
def _leave() -> None:
    """At the interpreter's exit, just before the workers are killed: whoever calls now is told, and no daemon thread is."""
    leaving.begin()
    for connection in list(_connections):
        if connection.dead is None:
            connection.dead = OpexecError(
                f"model {connection.process.name!r} is gone: the interpreter is exiting"
            )


def _orphan_after_fork() -> None:
    """A forked child shares the channel's memory with its parent; were both to use it, both would be corrupted."""
    for connection in list(_connections):
        connection.dead = OpexecError(
            f"model {connection.process.name!r} belongs to process {os.getppid()}, which forked this one; "
            "load the model in the process that uses it"
        )


os.register_at_fork(after_in_child=_orphan_after_fork)
