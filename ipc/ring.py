"""A single-producer single-consumer ring of fixed-size records.

Two rings, one a direction, lie in one segment, the *channel segment*:

    byte
       0  header   magic, protocol, slots a ring, bytes a slot          written once, by the side that creates it
     128  caller's line   request tail | response head | caller asleep | when it rang | crowded   written by the caller only
     256  worker's line   response tail | request head | worker asleep | when it rang | crowded   written by the worker only
    4096  request slots   SLOTS * SLOT_BYTES                            written by the caller only
       …  response slots  SLOTS * SLOT_BYTES                            written by the worker only

Words are unsigned 64-bit in native byte order. A tail counts the records ever published, a head those ever consumed; slot ``n % SLOTS``
holds record ``n``. Every word has one writer, and the words of one writer share a cache line, 128 bytes away from the other's (two
lines, because processors fetch them in pairs).

Cursor words, which the other side reads at any time, are written as ``words[i] = value``, one 8-byte store; `struct.pack_into` zeroes its target first, which the other side sees.
"""

from __future__ import annotations

import struct

from .faults import ProtocolError
from .fence import WEAKLY_ORDERED, make_fence
from .wire import HEAD

MAGIC = 0x6365_7865_706F  # "opexec" in memory order
SLOTS = 1024
SLOT_BYTES = 128

#: How many records wait at most. One slot stays free, so that what was taken last can be read until the next is taken.
CAPACITY = SLOTS - 1

_CALLER_LINE = 128
_WORKER_LINE = 256
_SLOTS_START = 4096
_RING_BYTES = SLOTS * SLOT_BYTES

#: Size of the channel segment in bytes.
CHANNEL_BYTES = _SLOTS_START + 2 * _RING_BYTES

_HEADER = struct.Struct("=4Q")

_pack_head = HEAD.pack_into


class Side:
    """Where one side's words and slots lie: word indices of its own line, and the first byte of the ring it produces into."""

    def __init__(self, line, slots):
        self.tail = line // 8
        self.head = line // 8 + 1
        self.asleep = line // 8 + 2
        self.rang = line // 8 + 3
        self.crowded = line // 8 + 4
        self.slots = slots


CALLER = Side(_CALLER_LINE, _SLOTS_START)
WORKER = Side(_WORKER_LINE, _SLOTS_START + _RING_BYTES)


def write_header(map, protocol):
    """Describe the layout at the start of the channel segment."""
    _HEADER.pack_into(map, 0, MAGIC, protocol, SLOTS, SLOT_BYTES)


def check_header(map, protocol):
    """Raise ProtocolError, naming what differs, unless the segment is laid out as this module expects."""
    if len(map) < CHANNEL_BYTES:
        raise ProtocolError("the channel segment has {} bytes, expected {}".format(len(map), CHANNEL_BYTES))
    found = _HEADER.unpack_from(map, 0)
    for what, came, expected in zip(
        ("magic", "protocol", "slots", "slot bytes"), found, (MAGIC, protocol, SLOTS, SLOT_BYTES)
    ):
        if came != expected:
            raise ProtocolError("channel header: expected {} {}, found {}".format(what, expected, came))


class Producer:
    """The publishing end of a ring. One thread at a time."""

    __slots__ = ("_words", "_bytes", "_tail_at", "_head_at", "_slots", "tail", "_order")

    def __init__(self, map, side, peer):
        self._bytes = memoryview(map)
        self._words = self._bytes.cast("Q")
        self._tail_at = side.tail
        self._head_at = peer.head
        self._slots = side.slots
        self.tail = 0
        self._order = make_fence() if WEAKLY_ORDERED else None

    def room(self):
        """How many slots are free. Raises ProtocolError if the consumer's cursor is impossible."""
        used = self.tail - self._words[self._head_at]
        if not 0 <= used <= SLOTS:
            raise ProtocolError(
                "ring: of {} records the consumer says it read {}".format(self.tail, self.tail - used)
            )
        return max(CAPACITY - used, 0)

    def last_taken(self, record):
        """What the consumer took last, unpacked with the struct `record`, or None. It tells what the other side is at; trust it for no more."""
        head = self._words[self._head_at]
        if not 0 < head <= self.tail:
            return None
        return record.unpack_from(self._bytes, self._slots + (head - 1) % SLOTS * SLOT_BYTES)

    def publish(self, kind, id, plan, place, word4, word5, outside=(), word6=0, word7=0):
        """Write a record (`wire.HEAD`, then the places `outside`) into the next slot and publish it; False if no slot is free.

        Raises like `room`.
        """
        tail = self.tail
        words = self._words
        if not 0 <= tail - words[self._head_at] < CAPACITY and not self.room():
            return False
        start = self._slots + tail % SLOTS * SLOT_BYTES
        _pack_head(self._bytes, start, kind, id, plan, place, word4, word5, word6, word7)
        if outside:
            for index, one in enumerate(outside, (start + HEAD.size) // 8):
                words[index] = one
        if self._order is not None:
            self._order()
        # The private cursor moves first: interrupted between the two, the record is published by the next one instead of overwritten.
        self.tail = tail + 1
        words[self._tail_at] = tail + 1
        return True

    def publish_long(self, record, *fields):
        """`publish` for a record of another form, packed by the struct `record` (at most SLOT_BYTES)."""
        tail = self.tail
        if not self.room():
            return False
        record.pack_into(self._bytes, self._slots + tail % SLOTS * SLOT_BYTES, *fields)
        if self._order is not None:
            self._order()
        self.tail = tail + 1
        self._words[self._tail_at] = tail + 1
        return True


class Consumer:
    """The reading end of a ring. One thread at a time."""

    __slots__ = ("words", "_bytes", "tail_at", "_head_at", "_slots", "head", "_order")

    def __init__(self, map, side, peer):
        self._bytes = memoryview(map)
        self.words = self._bytes.cast("Q")
        self.tail_at = peer.tail
        self._head_at = side.head
        self._slots = peer.slots
        self.head = 0
        self._order = make_fence() if WEAKLY_ORDERED else None

    def peek(self, record):
        """Unpack the oldest unread record with the struct `record`; None if there is none. Read once: nothing here is looked at twice."""
        head = self.head
        tail = self.words[self.tail_at]
        if tail == head:
            return None
        if not 0 < tail - head <= SLOTS:
            raise ProtocolError(
                "ring: the producer says it wrote {} records; expected {} to {}".format(
                    tail, head, head + SLOTS
                )
            )
        if self._order is not None:
            self._order()
        return record.unpack_from(self._bytes, self._slots + head % SLOTS * SLOT_BYTES)

    def outside(self, count):
        """The first `count` words behind the head of the record last peeked: the places of tensors outside the block."""
        start = (self._slots + self.head % SLOTS * SLOT_BYTES + HEAD.size) // 8
        return tuple(self.words[start : start + count])

    def advance(self):
        """Give the slot of the record last peeked back to the producer."""
        if self._order is not None:
            self._order()  # what was read of the slot was read before it is given back
        head = self.head + 1
        self.head = head
        self.words[self._head_at] = head
