"""Serving a client's channel without ever waiting for the client: a result for which it has no room yet is put aside."""

from __future__ import annotations

import numpy as np

from opexec.ipc import wire
from opexec.ipc.arena import NoRoom
from opexec.ipc.channel import close_all
from opexec.ipc.faults import ProtocolError
from opexec.workers.loop import Server
from opexec.workers.structure import flatten


class Guest(Server):
    """Serves a client's channel, and never waits for it."""

    def __init__(self, control, message, fds, model, tally):
        super().__init__(control, message, fds)
        self.model = model
        #: An answer for which the client has still to give room: its call's id, and the names, copies and tree of its tensors.
        self.aside: tuple = ()
        self.let_in = False
        self._tally = tally
        self._call = 0

    def leave(self):
        """Unmap everything now, and not when cycles are collected. Arrays that the model kept keep their memory."""
        self.channel.bell.close()
        self.__dict__.clear()

    # Calls

    def _answer(self, record):
        self._call = record[1]
        self._tally.count()
        return super()._answer(record)

    def _reserve(self, specs):
        try:
            return super()._reserve(specs)
        except _NoRoomYet:
            # Private memory for now: the result is put aside with everything else.
            return {name: np.empty(shape, dtype) for name, dtype, shape in specs}

    def _outputs(self, result):
        try:
            return super()._outputs(result)
        except _NoRoomYet:
            names, leaves, structure = flatten(result)
            # Copies: the next call, somebody else's, may run before there is room.
            self.aside = (self._call, names, [np.array(leaf, order="C") for leaf in leaves], structure.tree)
            raise

    def _grow(self, size, spare=False):
        if spare:  # not worth asking for and waiting
            raise NoRoom("{} bytes of a client's own are not at hand".format(size))
        raise _NoRoomYet(size)

    def _fail(self, id, kind, error):
        if isinstance(error, _NoRoomYet) and self.aside:
            self._give_reserved()
            self.control.send({"type": "need", "bytes": error.size})
            return False
        return super()._fail(id, kind, error)

    def _send_aside(self):
        id, names, leaves, tree = self.aside
        try:
            block = self.packer.pack(names, leaves, tree)
        except _NoRoomYet as error:  # what came was smaller than what was asked for
            self.control.send({"type": "need", "bytes": error.size})
            return
        self.aside = ()
        try:
            self._tell(block)
        except ValueError as error:
            self._fail(id, "model", error)
            return
        self.out[block.place] = block
        self.channel.producer.publish(wire.RESULT, id, block.plan.id, block.place, 0, block.plan.copied)
        self.channel.bell.ring()

    # Messages

    def _on_message(self, message, fds):
        kind = message["type"]
        if kind != "room":
            close_all(fds)
        if kind == "load":
            self.let_in = True
            self._say_loaded()
        elif kind == "refused" and self.aside:
            for place in message.get("released", ()):
                self._released(place)
            id, self.aside = self.aside[0], ()
            self._fail(id, "room", NoRoom(message["why"]))
        elif kind in ("room", "refused", "bye"):
            super()._on_message(message, fds)
            if self.aside:
                self._send_aside()
        else:
            raise ProtocolError(
                "a control message of type {!r}, which a worker does not take from a client".format(kind)
            )


class _NoRoomYet(NoRoom):
    """The client's arena has no room of `size` bytes, and it has not been asked for any."""

    def __init__(self, size):
        super().__init__("{} bytes".format(size))
        self.size = size
