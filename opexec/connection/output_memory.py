"""The worker's output arena as the caller sees it: the segments made for it, and the blocks in it that the caller's arrays hold.

The worker owns the arena and hands out its blocks; the caller makes its segments, lends a block's arrays to the user, and tells the worker
when nothing looks at a block any more.
"""

from __future__ import annotations

import threading
from typing import Any

from ..ipc import wire
from ..ipc.arena import NoRoom
from ..ipc.channel import Channel, time_left
from ..ipc.faults import PeerGone, ProtocolError
from ..ipc.lease import Leases
from ..ipc.plan import Plan
from ..ipc.segment import Segment
from ..memory import SharedMemory

_FIRST_SEGMENT = 1 << 20
_LARGEST_GROWTH = 256 << 20
_LARGE = 1 << 16
_PLACES_KEPT = 256

#: A result that is expected: its place, its plan, its arrays, and their leases.
Foreseen = tuple[int, Plan, list[Any], Any]


class OutputMemory:
    """One worker's. `sending` is the lock under which records are published: it guards what is to be released, too."""

    def __init__(self, channel: Channel, memory: SharedMemory, sending: threading.Lock) -> None:
        self.leases = Leases()
        #: The place, marked PRESENT, that goes with the next call, or 0. Read and set under `sending`.
        self.due = 0
        #: There are large blocks. One that was let go of is then released before the next call and not beside it: two that take turns
        #: need twice the room in the processor's caches, which costs more than looking.
        self.eager = False
        self._channel = channel
        self._memory = memory
        self._sending = sending
        #: How often the worker has asked for room.
        self.asked = 0
        self._segments: dict[int, Segment] = {}
        self._closed = False
        #: The plan of the last result.
        self._last: Plan | None = None
        #: Where places were found: for which plan, mapping and offset.
        self._found: dict[int, tuple[Plan, Any, int]] = {}
        #: The place of the result that came last when a place was released with its call; and the place that was just released so, or -1.
        self._followed: dict[int, int] = {}
        self._released = -1

    def open(self, deadline: float | None) -> None:
        """Give the worker its first segment. Raises TimeoutError past `deadline` (by `time.monotonic`)."""
        self.give_room(_FIRST_SEGMENT, deadline)

    def populate(self) -> None:
        """Map all pages now, so that no call pays for it."""
        for segment in self._segments.values():
            segment.populate()

    def give_room(self, size: int, deadline: float | None = None, spare: bool = False) -> None:
        """Answer a worker that needs `size` bytes: with a segment, or with the reason why there is none, and with what it may have back.

        `spare`: it only wants them if there is plenty.

        Raises PeerGone if this has been closed, which another thread may do meanwhile.
        """
        self.asked += 1
        with self._sending:
            released = [place | wire.PRESENT for place in self.leases.collect()]
            if self.due:
                released.append(self.due)
                self.due = 0
        held = sum(segment.size for segment in list(self._segments.values()))
        try:
            segment = self._memory.create(size, room_to_grow=min(held, _LARGEST_GROWTH), spare=spare)
        except NoRoom as error:
            refusal = {"type": "refused", "why": str(error), "released": released}
            self._channel.control.send(refusal, timeout=time_left(deadline))
            return
        self._segments[segment.id] = segment
        if self._closed:  # and may have missed this one
            self._memory.forget(segment)
            raise PeerGone("this side has closed the connection")
        self._channel.segments[segment.id] = segment
        self._channel.control.send(
            {"type": "room", "id": segment.id, "size": segment.size, "released": released},
            [segment.fd],
            time_left(deadline),
        )

    def foresee(self, due: int) -> Foreseen | None:
        """What the next result may well be: by the plan of the last one, in the block that followed last time on the one that was just
        released with its call, marked PRESENT; that one itself, mostly.

        Made while the worker works, its arrays cost the call nothing. Nobody looks at them unless the result is that very one.
        """
        plan = self._last
        if plan is None or not plan.whole or not plan.names:
            return None
        self._released = released = due ^ wire.PRESENT
        place = self._followed.get(released, released)
        found = self._found.get(place)
        if found is None or found[0] is not plan:
            try:
                found = (plan, *self._channel.locate_block(place, plan.size))
            except ProtocolError:  # the block was a smaller one's, at the end of its segment
                return None
            _note(self._found, place, found)
        views = plan.views(found[1], found[2])
        return place, plan, views, self.leases.prepare(place, views)

    def lend(self, plan: Plan, place: int) -> list[Any]:
        """The tensors of the block at `place`: arrays over shared memory, lent for as long as anything views them.

        Raises ProtocolError if the block does not lie in a segment, or is lent already.
        """
        if place in self.leases.lent:
            raise ProtocolError(f"a result lies at {place:#x}, where the caller still holds another")
        views = plan.views(*self._channel.locate_block(place, plan.size))
        self._last = plan
        if self._released >= 0:
            _note(self._followed, self._released, place)
            self._released = -1
        if plan.size > _LARGE:
            self.eager = True
        if plan.whole:
            self.leases.lend(place, views)
            return views
        if plan.outside:
            raise ProtocolError(f"plan {plan.id} of a result leaves tensors outside the block")
        for index in plan.texts:
            views[index] = plan.decode(index, views[index])
        self.leases.lend(place, [view for i, view in enumerate(views) if i not in plan.texts])
        return views

    def forfeit(self, place: int) -> None:
        """Nobody wants the block at `place`."""
        if place not in self.leases.lent:
            self.leases.forfeit(place)

    def collect(self) -> None:
        """Find out which blocks the worker may have back: one goes with the next call, further ones in records of their own.

        Under `sending`.
        """
        found = self.leases.collect()
        if len(found) == 1 and not self.due:  # mostly it is what the last call gave, and nothing else
            self.due = found[0] | wire.PRESENT
            return
        places = [place | wire.PRESENT for place in found]
        if self.due:
            places.append(self.due)
        self.due = places.pop() if places else 0
        producer = self._channel.producer
        while places and producer.room() > 1:
            chunk = places[: wire.RELEASES_IN_RECORD]
            del places[: wire.RELEASES_IN_RECORD]
            padding = [0] * (wire.RELEASES_IN_RECORD - len(chunk))
            producer.publish_long(wire.RELEASES, wire.RELEASE, *chunk, *padding)
        for place in places:
            self.leases.forfeit(place & ~wire.PRESENT)

    def close(self) -> None:
        """Let go of the segments; arrays over them stay good."""
        self._closed = True
        self._found.clear()
        for segment in list(self._segments.values()):
            self._memory.forget(segment)


def _note(places: dict[int, Any], place: int, what: Any) -> None:
    if len(places) >= _PLACES_KEPT:
        places.clear()
    places[place] = what
