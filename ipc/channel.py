"""Both ends of the connection between a caller and a worker: rings, doorbells, control socket, and what each knows of the other.

A `Channel` moves records and keeps the tables they refer to: plans and segments that the other side announced in control messages, always
before the first record that names them. What a record means is not known here.
"""

from __future__ import annotations

import os
import threading
import time

from .control import under
from .doorbell import Doorbell
from .faults import PeerGone, ProtocolError
from .frames import Frame
from .plan import Plan
from .ring import Consumer, Producer
from .segment import Segment
from .wire import ALIGNMENT, PLACE_BITS, PLACE_MASK

_FORGET_ABOVE = 256


class Channel:
    """One side's end.

    `map` is the mapping of the channel segment, `own` and `peer` are `ring.CALLER` and `ring.WORKER` or the reverse, `bells` the eventfds of this
    side and the other. `on_message(message, fds)` gets the control messages that are not the channel's own.
    `attaches` says whether the other side's segments come in messages; the caller's side makes those of both. `behind_lock`: see `Doorbell`.
    """

    def __init__(self, map, own, peer, control, bells, on_message, attaches=True, behind_lock=False):
        self.control = control
        self.producer = Producer(map, own, peer)
        self.consumer = Consumer(map, own, peer)
        self.bell = Doorbell(self.consumer.words, own, peer, bells[0], bells[1], behind_lock)
        self.bell.watch(control.fileno())
        self.plans = {}
        self.segments = {}
        self.attaches = attaches
        self._on_message = on_message
        self.told = set()
        self._untold = {}  # frames of plans that were not told in time, by id: the part that was sent is not sent again
        self._telling = threading.Lock()

    # Sending

    def tell(self, plan, packer, deadline=None):
        """Announce `plan`, and which plans `packer` has given up since, unless the other side knows it already.

        Raises TimeoutError past `deadline` (by `time.monotonic`): it is to be told again before it is used.
        """
        if plan.id not in self.told:
            under(self._telling, time_left(deadline), self._tell, plan, packer, deadline)

    def _tell(self, plan, packer, deadline):
        if plan.id in self.told:
            return
        frame = self._untold.get(plan.id)
        if frame is None:
            if self._untold:
                known = packer.plan_ids
                self._untold = {id: kept for id, kept in self._untold.items() if id in known}
            frame = self._untold[plan.id] = Frame(plan.to_message())
        self.control.send_frame(frame, time_left(deadline))
        self.told.add(plan.id)
        del self._untold[plan.id]
        if len(self.told) > _FORGET_ABOVE:
            stale = self.told - packer.plan_ids
            self.control.send({"type": "forget", "plans": sorted(stale)}, timeout=time_left(deadline))
            self.told -= stale

    def offer(self, segment, deadline=None):
        """Hand the other side a segment of this side's arena. Raises TimeoutError past `deadline`: it is to be offered again."""
        message = {"type": "segment", "id": segment.id, "size": segment.size}
        self.control.send(message, [segment.fd], timeout=time_left(deadline))

    # Receiving

    def handle_control(self):
        """Handle the control messages that are there. Raises PeerGone at end of file, if there were none before it."""
        handled = False
        while True:
            try:
                first = self.control.first()
            except PeerGone:
                if handled:
                    return
                raise
            if first is None:
                return
            # A message goes once it is handled: interrupted in between, it is handled again, to the same effect.
            self.handle(*first)
            self.control.drop_first()
            handled = True

    def handle(self, message, fds):
        """Handle one control message: the channel's own here, any other by `on_message`. Raises ProtocolError for a malformed one."""
        kind = message["type"]
        if kind == "segment" and self.attaches:
            self._attach(message, fds)
            return
        if kind in ("plan", "forget"):
            close_all(fds)
        if kind == "plan":
            plan = Plan.from_message(message)
            if plan.id not in self.plans:
                self.plans[plan.id] = plan
        elif kind == "forget":
            ids = message.get("plans")
            if not isinstance(ids, list) or not all(isinstance(id, int) for id in ids):
                raise ProtocolError("a list of plans to forget that cannot be read: {!r}".format(ids))
            for id in ids:
                self.plans.pop(id, None)
        else:
            self._on_message(message, fds)

    def plan(self, id):
        """The other side's plan of that id. Its message was sent before any record that names it. Raises ProtocolError if there is none."""
        plan = self.plans.get(id)
        if plan is None:
            self.handle_control()
            plan = self.plans.get(id)
            if plan is None:
                raise ProtocolError("a record names plan {}, which was never announced".format(id))
        return plan

    def locate(self, place, size):
        """``(map, offset)`` of the `size` bytes at `place` in the other side's segments. Raises ProtocolError if they do not lie in one."""
        id = place >> PLACE_BITS
        offset = place & PLACE_MASK
        segment = self.segments.get(id)
        if segment is None:
            if self.attaches:
                self.handle_control()
            segment = self.segments.get(id)
            if segment is None:
                raise ProtocolError("a record names segment {}, which was never announced".format(id))
        if offset + size > segment.size:
            raise ProtocolError(
                "a record names {} bytes at {} of segment {}, which has {}".format(
                    size, offset, id, segment.size
                )
            )
        return segment.map, offset

    def locate_block(self, place, size):
        """`locate` for a block, which begins on ALIGNMENT bytes."""
        segment = self.segments.get(place >> PLACE_BITS)
        offset = place & PLACE_MASK
        if segment is not None and not place % ALIGNMENT and offset + size <= segment.size:
            return segment.map, offset
        if place % ALIGNMENT:
            raise ProtocolError(
                "a record names a block at {:#x}, which is not on {} bytes".format(place, ALIGNMENT)
            )
        return self.locate(place, size)

    def _attach(self, message, fds):
        id = message.get("id")
        if isinstance(id, int) and id in self.segments:
            close_all(fds)  # handled before an interruption, or offered twice
            return
        attach_announced(message, fds, lambda segment: self.segments.__setitem__(segment.id, segment))


def attach_announced(message, fds, keep):
    """Map the segment that a control message with `id` and `size` announces, and whose descriptor came with it; `keep` gets it.

    Closes all descriptors. Raises ProtocolError if the message is malformed, or the descriptor is not of that memory.
    """
    id, size = message.get("id"), message.get("size")
    if len(fds) != 1 or not all(
        isinstance(value, int) and 0 <= value < 1 << PLACE_BITS for value in (id, size)
    ):
        close_all(fds)
        raise ProtocolError(
            "a segment that cannot be read: id {!r}, size {!r}, {} descriptors".format(id, size, len(fds))
        )
    try:
        # A copy: the message's own is closed when the segment is kept, so an interruption before that loses nothing.
        keep(Segment.attach(id, os.dup(fds[0]), size))
    except (ValueError, OSError) as error:
        close_all(fds)
        raise ProtocolError("segment {} cannot be mapped: {}".format(id, error)) from None
    close_all(fds)


def close_all(fds):
    """Close descriptors that came with a message and that nobody wants, and empty the list: none is closed twice."""
    while fds:
        os.close(fds.pop())


def time_left(deadline):
    """Seconds until `deadline` (by `time.monotonic`), as what waits takes them; None for None."""
    if deadline is None:
        return None
    return min(max(deadline - time.monotonic(), 0), threading.TIMEOUT_MAX)
