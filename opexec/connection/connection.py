"""The caller's end of one worker: it is given a model to load, and sent calls.

Any number of threads call at once. Each sends under a short lock and then waits without one.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ..errors import CallTimeout, OpexecError
from ..ipc import PROTOCOL, faults, wire
from ..ipc.channel import Channel, time_left
from ..ipc.control import under
from ..ipc.packer import Block as PackedBlock
from ..ipc.packer import Packer
from ..ipc.plan import Plan
from ..ipc.ring import CALLER, CHANNEL_BYTES, WORKER, write_header
from ..ipc.strategies import Block, strategy, usable_cores
from ..memory import SharedMemory
from ..processes import leaving
from ..processes.worker import WorkerProcess
from . import registry
from .calls import Call, InFlight
from .output_memory import OutputMemory
from .reader_role import ReaderRole
from .timing import now
from .waiting import Waiting

#: How long, in seconds, a worker's control socket may take no message from `let_in`.
_LET_IN_S = 1.0

#: A deadline of what is not to be waited for.
_AT_ONCE = 0.0

#: Has the reader's role once the connection is closed.
_THE_END = object()


class Connection(Waiting):
    """Sends calls to a worker process and reads their answers."""

    def __init__(self, process: WorkerProcess, packer: Packer, memory: SharedMemory, wait: str) -> None:
        self.process = process
        self.dead = None
        self.sent = 0
        #: The number of the next call that is timed, and how many are left out before it.
        self.next_timed = self.left_out = 0
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
        self._strategy = strategy(wait, self.channel.bell, crowded=lambda: connection._crowded())
        self._wait = wait
        self._cores = usable_cores()
        registry.enter(self)

    def _crowded(self) -> bool:
        """Whether a thread that looks for an answer takes a core from a busy worker. The worker is told if there are more of these than cores.

        A core for each that is busy, and one for each thread that looks: a thread that gives way does not give way to a worker that waits
        for another core, and it may take milliseconds until the scheduler moves that one.
        """
        busy = registry.busy(self._cores + 1)
        self.channel.bell.tell_crowded(busy > self._cores)
        return 2 * busy > self._cores

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
        woke = channel.bell.ring()
        if woke:
            self._woke()
        return woke

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
        if self.channel.bell.ring():
            self._woke()
        return published

    def _woke(self) -> None:
        """The worker slept. If it was told to, see whether that still holds: it may be that no thread looks for its answers."""
        if self.channel.bell.told_crowded:
            self._crowded()

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

    def _offer_segments(self, deadline: float | None = None) -> None:
        under(self._offering, time_left(deadline), self._offer, deadline)

    def _offer(self, deadline: float | None) -> None:
        for id, segment in self._packer.arena.segments.items():
            if id not in self._offered:
                self.channel.offer(segment, deadline)
                self._offered.add(id)

    def arrays(self, call: Call) -> list[Any]:
        """The tensors of an answered call, in the order of its plan, over shared memory: good for as long as they are held."""
        assert call.answer is not None
        plan, place, foreseen, leases = call.plan, call.answer[3], call.foreseen, self.outputs.leases
        if foreseen is not None and foreseen[0] == place and foreseen[1] is plan and place not in leases.lent:
            leases.lent[place] = foreseen[3]
            return foreseen[2]
        try:
            return self.outputs.lend(plan, place)
        except faults.ProtocolError as error:
            raise self.broken(error) from error

    @property
    def rouse(self) -> Callable[[], object] | None:
        """What wakes the worker for a call that is coming; None where that could only get in the way, with a single core."""
        return None if isinstance(self._strategy, Block) else self.channel.bell.rouse

    # Sharing

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

    # The end

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
        registry.leave(self)


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
