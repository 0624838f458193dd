"""Receive, run, reply: what a worker does after its handshake.

One call at a time, in the order they came. The inputs of a call are arrays (or the framework's own tensors) over the caller's memory, made
once for each place and kept; its outputs go into a block of this worker's arena, by one copy, or by none where the platform
wrote them there. A block is this worker's again when the caller says that nothing looks at it any more.
"""

from __future__ import annotations

import socket
import sys
import time

import numpy as np

from opexec.ipc import PROTOCOL, wire
from opexec.ipc.arena import Arena, NoRoom
from opexec.ipc.channel import Channel, attach_announced, close_all
from opexec.ipc.control import Control
from opexec.ipc.faults import PeerGone, ProtocolError
from opexec.ipc.packer import Packer
from opexec.ipc.ring import CALLER, WORKER, check_header
from opexec.ipc.segment import Segment
from opexec.ipc.strategies import Block, strategy
from opexec.ipc.turns import blocks_in_turn
from opexec.workers import keeper as keepers
from opexec.workers import platforms
from opexec.workers.failure import describe
from opexec.workers.structure import flatten

_now = time.monotonic_ns

_IDLE_MS = 10_000  # a sleeping worker looks again this often, though nothing should make it
_PLACES_KEPT = 256  # bound inputs kept for each plan
_OF_A_CLIENT = 3  # descriptors: its socket, its process and the tally


def serve(control, keeper=False):
    """Load the model the caller names and answer its calls until it says goodbye or is gone; with a `keeper`, if there can be one."""
    try:
        channel_message, fds = _expect(control, "channel")
        if keeper:  # not before: by now the caller has seen to it that the whole group ends with it
            keepers.start()
        server = Server(control, channel_message, fds)
        if server.load():
            server.run()
            while server.arrived:  # `run` ended because other processes came, to be served beside the caller
                try:
                    from opexec.workers.clients import Clients  # only here: most models are never shared
                except OSError as error:  # no descriptor is left to read it by
                    while server.arrived:
                        turn_away(server.arrived.pop(0), str(error))
                else:
                    Clients(server).run()
                server.run()
    except PeerGone:
        pass
    except ProtocolError as error:
        # Nothing the caller writes can be trusted any more, and it must know why its calls fail.
        control.send({"type": "broken", "why": str(error)})
        raise


def _expect(control, kind):
    message, fds = control.receive()
    if message["type"] == "bye":
        raise PeerGone("the caller said goodbye")
    if message["type"] != kind:
        raise ProtocolError("expected a {!r} message, received {!r}".format(kind, message["type"]))
    return message, fds


class Server:
    """Serves one channel: that of the caller, or (`guest.Guest`) of another process to which the caller's model is shared."""

    def __init__(self, control, message, fds):
        segment_fd, caller_bell, worker_bell = fds
        segment = Segment.attach("channel", segment_fd, message["size"])
        check_header(segment.map, PROTOCOL)
        self.control = control
        self.channel = Channel(
            segment.map, WORKER, CALLER, control, (worker_bell, caller_bell), self._on_message
        )
        self.wait = strategy(
            message["wait"], self.channel.bell, answers=True, crowded=self.channel.bell.is_told_crowded
        )
        self.arena = Arena(self._grow)
        self.packer = Packer(self.arena, turns=blocks_in_turn)
        if not isinstance(self.wait, Block):
            # Only beside much copying: a caller that waits for little is mostly awake, and looking whether it is costs every answer.
            self.packer.rouse_for_large = self.channel.bell.rouse
        self.out = {}  # blocks the caller may be looking at, by place
        self.reserved = []  # the arrays that the run under way asked for, and the block that they lie in
        self._reserved_last: tuple = (None, (), None)  # specs, their names, the stock of their blocks
        self.model = platforms.Platform()  # until it is loaded
        self.running = True
        self.arrived = []  # control sockets of processes that are to be served too, and descriptors that came with them
        self._asking = False
        self._granted = None

    # Loading

    def load(self):
        """Handle messages until the model is loaded; False if it cannot be, after telling why."""
        while True:
            message, fds = self.control.receive()
            if message["type"] == "load":
                break
            self.channel.handle(message, fds)
        try:
            self.model = platforms.load(message["platform"], message["source"], message["options"])
        except BaseException as error:
            # SystemExit too: whatever the user's code raises while loading is the answer.
            self.control.send({"type": "failed", "error": describe(error)})
            return False
        self._say_loaded()
        return True

    def _say_loaded(self):
        for segment in list(self.channel.segments.values()) + list(self.arena.segments.values()):
            segment.populate()
        self.control.send(
            {
                "type": "loaded",
                "framework": self.model.framework,
                "version": self.model.version,
                "inputs": self.model.inputs,
                "outputs": self.model.outputs,
                "aligned": self.model.aligned,
            }
        )

    # Serving

    def run(self):
        """Answer calls until the caller is gone, which raises PeerGone, or somebody else has `arrived`."""
        self.running = not self.arrived
        channel, bell, wait = self.channel, self.channel.bell, self.wait
        consumer, peek = self.channel.consumer, self.channel.consumer.peek
        words, tail_at = consumer.words, consumer.tail_at
        expecting = False
        while self.running:
            record = peek(wire.HEAD)
            if record is None:
                if not wait.ready(words, tail_at, consumer.head, expecting):
                    if bell.sleep(consumer.head, _IDLE_MS):
                        channel.handle_control()
                    wait.slept()
                # Rung for, and nothing there: the caller rang ahead, and its call is on its way.
                expecting = bell.rung
                bell.rung = False
                continue
            if record[0] == wire.CALL:
                # A caller that had to be woken may well call again, once it is awake.
                expecting = self._answer(record)
            else:
                self._take_other(record)

    def step(self):
        """Handle the next record; None if there is none, else whether another one is to be expected soon."""
        record = self.channel.consumer.peek(wire.HEAD)
        if record is None:
            return None
        if record[0] == wire.CALL:
            return self._answer(record)
        self._take_other(record)
        return False

    def _take_other(self, record):
        consumer = self.channel.consumer
        if record[0] == wire.RELEASE:
            for place in consumer.peek(wire.RELEASES)[1:]:
                if place:
                    self._released(place)
            consumer.advance()
        elif record[0] == wire.LOOK:
            consumer.advance()
            self.channel.handle_control()
        else:
            raise ProtocolError("a record of kind {}; expected a call or a release".format(record[0]))

    def _answer(self, record):
        _, id, plan_id, place, release, timed, _, _ = record
        taken = _now() if timed else 0
        channel = self.channel
        if release:  # `_released`, spelled out
            returned = self.out.pop(release & ~wire.PRESENT, None)
            if returned is None:
                self._released(release)
            self.packer.give(returned)
        inputs = None
        try:
            plan = channel.plans.get(plan_id) or channel.plan(plan_id)
            places = self._places(plan, place) if plan.outside else place
            channel.consumer.advance()
            inputs = plan.memo.get(places)
            if inputs is None:
                inputs = self._bind(plan, places)
            if timed:
                started = _now()
                result = self.model.run(inputs[1], self._reserve)
                times = (taken, started, _now())
            else:
                times = None
                result = self.model.run(inputs[1], self._reserve)
            block, copied = self._outputs(result)
            plan_id, answered = block.plan.id, block.place
            if timed or not channel.producer.publish(wire.RESULT, id, plan_id, answered, 0, copied):
                self._post(wire.RESULT, id, plan_id, answered, copied, times)
            woke = channel.bell.ring()
            # From here on the caller reads meanwhile.
            self.out[answered] = block
        except NoRoom as error:
            woke = self._fail(id, "room", error)
        except (PeerGone, ProtocolError):
            raise
        except BaseException as error:  # a model's sys.exit() must not end the worker
            woke = self._fail(id, "model", error)
        # A model may have reshaped its input in place, and these views serve the next call too.
        if inputs is not None and not plan.texts and not plan.intact(inputs[0]):
            plan.memo.pop(places, None)
        return woke

    def _places(self, plan, place):
        """The place of the block, and those of the tensors outside it."""
        if plan.table < 0:
            found = self.channel.consumer.outside(len(plan.outside))
        else:
            found = plan.read_table(*self.channel.locate_block(place, plan.size))
        return (place,) + found

    def _bind(self, plan, places):
        """``(views, what the platform bound to them)`` for the tensors at `places`."""
        place, found = (places[0], places[1:]) if plan.outside else (places, ())
        views = plan.views(*self.channel.locate_block(place, plan.size))
        for index, place in zip(plan.outside, found):
            map, offset = self.channel.locate(place, plan.sizes[index])
            views[index] = np.ndarray(plan.shapes[index], plan.dtypes[index], map, offset)
        for index in plan.texts:
            views[index] = plan.decode(index, views[index])
        positional = plan.note
        inputs = (
            views,
            self.model.bind(views[:positional], dict(zip(plan.names[positional:], views[positional:]))),
        )
        if not plan.texts:  # texts are decoded anew for each call
            if len(plan.memo) >= _PLACES_KEPT:
                plan.memo.clear()
            plan.memo[places] = inputs
        return inputs

    def _reserve(self, specs):
        known, names, stock = self._reserved_last
        block = self.packer.another(stock) if specs is known else None
        if block is None:
            names, dtypes, shapes = zip(*specs)
            block = self.packer.reserve(names, dtypes, shapes, ("dict", names) + ("array",) * len(names))
            self._reserved_last = specs, names, block.stock
        arrays = dict(zip(names, block.views))
        self.reserved.append((arrays, block))
        return arrays

    def _outputs(self, result):
        """The block that holds `result`, told to the caller, and how many bytes were copied into it."""
        block = None
        for arrays, reserved in self.reserved:
            if arrays is result:
                block, copied = reserved, 0
        if block is None:
            names, leaves, structure = flatten(result)
            block = self.packer.pack_again(names, leaves, structure.tree)
            if block is None:
                block = self.packer.pack(names, leaves, structure.tree)
            copied = block.plan.copied
        # Only now, when nothing in them is needed any more.
        if self.reserved:
            self._give_reserved(block)
        if block.plan.id not in self.channel.told:
            self._tell(block)
        return block, copied

    def _tell(self, block):
        try:
            self.channel.tell(block.plan, self.packer)
        except ValueError as error:
            self.packer.give(block)
            raise ValueError("the names of the outputs are too long to send: {}".format(error)) from None

    def _give_reserved(self, kept=None):
        for _, block in self.reserved:
            if block is not kept:
                self.packer.give(block)
        self.reserved.clear()

    def _released(self, place):
        block = self.out.pop(place & ~wire.PRESENT, None)
        if block is None:
            raise ProtocolError("the caller releases {:#x}, which it does not hold".format(place))
        self.packer.give(block)

    def _fail(self, id, kind, error):
        self._give_reserved()
        self.control.send({"type": "failure", "id": id, "kind": kind, "error": describe(error)})
        self._post(wire.FAILURE, id, 0, 0, 0, None)
        return self.channel.bell.ring()

    def _post(self, kind, id, plan_id, place, copied, times):
        started, ended, offsets = _written(*times) if times else (0, 0, 0)
        while not self.channel.producer.publish(
            kind, id, plan_id, place, started, copied, (), ended, offsets
        ):
            # The caller has that many answers waiting for it; it is alive as long as the control socket is.
            self.channel.bell.ring()
            time.sleep(0.001)
            self.channel.handle_control()

    # Messages

    def _on_message(self, message, fds):
        kind = message["type"]
        for place in message.get("released", ()):
            self._released(place)
        if kind == "room":
            attach_announced(message, fds, self._take_in)
        elif kind == "refused":
            self._granted = NoRoom(message["why"])
        elif kind == "attach":
            if len(fds) < _OF_A_CLIENT:
                turn_away(fds, "this process may open no more files")
                return
            self.arrived.append(fds)
            self.running = False
        elif kind == "bye":
            self.running = False
            raise PeerGone("the caller said goodbye")
        else:
            raise ProtocolError("a control message of type {!r}, which a worker does not know".format(kind))

    def _take_in(self, segment):
        if self._asking:
            self._granted = segment
        else:
            self.arena.add(segment)

    def _grow(self, size, spare=False):
        """Ask the caller for a segment that holds `size` bytes (`spare`: if it has plenty), and for the blocks it needs no more."""
        self._asking, self._granted = True, None
        self.control.send({"type": "need", "bytes": size, "spare": spare})
        while self._granted is None:
            self.channel.handle(*self.control.receive())
        granted, self._asking = self._granted, False
        if isinstance(granted, NoRoom):
            raise granted
        return granted


def turn_away(fds, why):
    """Do without a client for which there are not descriptors enough. It is told, if its socket has come."""
    why = "the worker has no file descriptors left for another client ({}); see open_files, and ulimit -n".format(
        why
    )
    print("opexec: turned away a client:", why, file=sys.stderr)
    if fds:
        control = Control(socket.socket(fileno=fds.pop(0)))
        try:
            control.send(refusal(why), timeout=0)
        except (PeerGone, TimeoutError, OSError):
            pass
        control.close()
    close_all(fds)


def refusal(why):
    """What a client is told that is not let in."""
    return {"type": "failed", "error": describe(OSError(why))}


def _written(taken, started, ended):
    """The words of a timed result (`wire.TIMED`)."""
    before = min(started - taken, wire.LONGEST_OFFSET)
    after = min(_now() - ended, wire.LONGEST_OFFSET)
    return started, ended, after << 32 | before
