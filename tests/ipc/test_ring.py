"""Records arrive once, in order and whole; a full ring takes no more; cursors of the other side are not trusted."""

from __future__ import annotations

import collections
import os
import runpy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opexec.ipc import wire
from opexec.ipc.faults import ProtocolError
from opexec.ipc.ring import (
    CALLER,
    CAPACITY,
    CHANNEL_BYTES,
    SLOTS,
    WORKER,
    Consumer,
    Producer,
    check_header,
    write_header,
)

numbered = runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "other_side.py"))[
    "numbered"
]
BOTH_WAYS = pytest.mark.parametrize(
    "own, peer", [(CALLER, WORKER), (WORKER, CALLER)], ids=["requests", "responses"]
)


@pytest.fixture
def map(segments):
    return segments(CHANNEL_BYTES).map


def read(consumer):
    """The fields of the next record, consumed; None if there is none."""
    record = consumer.peek(wire.HEAD)
    if record is not None:
        consumer.advance()
        assert record[6:] == (0, 0)
        return record[:6]
    return None


@BOTH_WAYS
def test_an_empty_ring(map, own, peer):
    producer, consumer = Producer(map, own, peer), Consumer(map, peer, own)
    assert producer.room() == CAPACITY and consumer.peek(wire.HEAD) is None


@BOTH_WAYS
def test_a_full_ring_takes_no_more_and_loses_nothing(map, own, peer):
    producer, consumer = Producer(map, own, peer), Consumer(map, peer, own)
    for index in range(CAPACITY):
        assert producer.publish(*numbered(index))
    assert producer.last_taken(wire.HEAD) is None
    for _ in range(3):
        assert producer.room() == 0
        assert not producer.publish(*numbered(99_999))
        assert not producer.publish_long(wire.RELEASES, wire.RELEASE, *range(wire.RELEASES_IN_RECORD))
    assert read(consumer) == numbered(0)
    assert producer.room() == 1 and producer.publish(*numbered(CAPACITY)) and producer.room() == 0
    assert producer.last_taken(wire.HEAD)[:6] == numbered(0), "what was taken last is overwritten"
    assert [read(consumer) for _ in range(CAPACITY)] == [numbered(index) for index in range(1, CAPACITY + 1)]
    assert read(consumer) is None


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2 * CAPACITY), st.integers(0, 2 * CAPACITY)), max_size=12))
def test_it_wraps_around_like_a_queue(bursts):
    map = bytearray(CHANNEL_BYTES)
    producer, consumer = Producer(map, CALLER, WORKER), Consumer(map, WORKER, CALLER)
    queue, written = collections.deque(), 0
    for pushed, taken in bursts:
        for _ in range(pushed):
            fits = len(queue) < CAPACITY
            assert producer.publish(*numbered(written)) == fits
            if fits:
                queue.append(numbered(written))
                written += 1
        for _ in range(taken):
            assert read(consumer) == (queue.popleft() if queue else None)
        assert producer.room() == CAPACITY - len(queue)


def test_the_two_rings_do_not_touch(map):
    requests = Producer(map, CALLER, WORKER), Consumer(map, WORKER, CALLER)
    responses = Producer(map, WORKER, CALLER), Consumer(map, CALLER, WORKER)
    for index in range(CAPACITY):
        requests[0].publish(*numbered(2 * index))
        responses[0].publish(*numbered(2 * index + 1))
    for index in range(CAPACITY):
        assert read(requests[1]) == numbered(2 * index)
        assert read(responses[1]) == numbered(2 * index + 1)
    assert read(requests[1]) is None and read(responses[1]) is None


def test_a_record_stays_until_it_is_consumed(map):
    producer, consumer = Producer(map, CALLER, WORKER), Consumer(map, WORKER, CALLER)
    producer.publish(*numbered(1))
    producer.publish(*numbered(2))
    assert consumer.peek(wire.HEAD)[:6] == consumer.peek(wire.HEAD)[:6] == numbered(1)
    assert producer.room() == CAPACITY - 2
    consumer.advance()
    assert producer.room() == CAPACITY - 1
    assert consumer.peek(wire.HEAD)[:6] == numbered(2)


@pytest.mark.parametrize("count", [0, 1, wire.PLACES_IN_RECORD])
def test_records_with_places_and_releases(map, count):
    producer, consumer = Producer(map, CALLER, WORKER), Consumer(map, WORKER, CALLER)
    released = tuple(range(5, 5 + wire.RELEASES_IN_RECORD))
    for turn in range(SLOTS + 3):
        places = tuple(2**64 - 1 - turn - index for index in range(count))
        assert producer.publish(*numbered(7), places)
        assert producer.publish_long(wire.RELEASES, wire.RELEASE, *released)
        assert producer.publish(*numbered(8))
        assert consumer.outside(count) == places
        assert read(consumer) == numbered(7)
        assert consumer.peek(wire.RELEASES) == (wire.RELEASE,) + released
        consumer.advance()
        assert read(consumer) == numbered(8)


# Cursors of the other side


@BOTH_WAYS
@pytest.mark.parametrize(
    "written, says", [(5, -1), (5, 6), (5, SLOTS), (5, 2**63), (5, 2**64 - 1), (SLOTS + 9, 8)]
)
def test_an_impossible_head_is_refused(map, own, peer, written, says):
    producer, consumer = Producer(map, own, peer), Consumer(map, peer, own)
    for index in range(written):
        producer.publish(*numbered(index))
        read(consumer)
    words = memoryview(map).cast("Q")
    words[peer.head] = says % 2**64
    with pytest.raises(
        ProtocolError, match="of {} records the consumer says it read {}".format(written, says % 2**64)
    ):
        producer.room()
    with pytest.raises(ProtocolError):
        producer.publish(*numbered(0))
    with pytest.raises(ProtocolError):
        producer.publish_long(wire.RELEASES, *range(16))
    assert words[own.tail] == written, "a record was published all the same"
    words[peer.head] = written
    assert producer.publish(*numbered(written)) and read(consumer) == numbered(written)


@BOTH_WAYS
@pytest.mark.parametrize(
    "read_before, says", [(5, 4), (5, 0), (0, SLOTS + 1), (5, SLOTS + 6), (5, 2**63), (5, 2**64 - 1)]
)
def test_an_impossible_tail_is_refused(map, own, peer, read_before, says):
    producer, consumer = Producer(map, own, peer), Consumer(map, peer, own)
    for index in range(read_before):
        producer.publish(*numbered(index))
        read(consumer)
    words = memoryview(map).cast("Q")
    words[own.tail] = says
    for record in (wire.HEAD, wire.OUTSIDE, wire.RELEASES):
        with pytest.raises(ProtocolError, match="the producer says it wrote {} records".format(says)):
            consumer.peek(record)
    words[own.tail] = read_before
    assert consumer.peek(wire.HEAD) is None


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_whatever_cursors_say_a_side_stays_inside_its_slots(tail, head, steps):
    map = bytearray(CHANNEL_BYTES)
    producer, consumer = Producer(map, CALLER, WORKER), Consumer(map, CALLER, WORKER)
    words = memoryview(map).cast("Q")
    for _ in range(steps):
        producer.publish(*numbered(1))
    words[WORKER.tail], words[WORKER.head] = tail, head
    for operation in (
        producer.room,
        lambda: producer.publish(*numbered(2)),
        lambda: consumer.peek(wire.HEAD),
    ):
        try:
            operation()
        except ProtocolError:
            pass
    assert bytes(map[WORKER.slots :]) == bytes(CHANNEL_BYTES - WORKER.slots), (
        "the other side's slots were written"
    )
    assert words[WORKER.tail] == tail and words[WORKER.head] == head, "the other side's words were written"


# The header


def test_a_header_is_checked_and_what_differs_is_named(map):
    write_header(map, 1)
    check_header(map, 1)
    with pytest.raises(ProtocolError, match="expected protocol 2, found 1"):
        check_header(map, 2)
    for word, name in enumerate(["magic", "protocol", "slots", "slot bytes"]):
        write_header(map, 1)
        memoryview(map).cast("Q")[word] ^= 1 << 40
        with pytest.raises(ProtocolError, match="expected {} ".format(name)):
            check_header(map, 1)


@pytest.mark.parametrize("size", [0, 31, CHANNEL_BYTES - 1])
def test_a_channel_segment_that_is_too_small_is_refused(size):
    with pytest.raises(ProtocolError, match="{} bytes, expected {}".format(size, CHANNEL_BYTES)):
        check_header(bytearray(size), 1)


def test_words_of_the_two_sides_do_not_share_a_cache_line():
    own = {CALLER.tail, CALLER.head, CALLER.asleep, CALLER.rang}
    theirs = {WORKER.tail, WORKER.head, WORKER.asleep, WORKER.rang}
    assert len(own | theirs) == 8
    assert min(theirs) * 8 // 128 > max(own) * 8 // 128 and min(own) * 8 // 128 > 0
    assert CALLER.slots >= 8 * max(theirs) + 8 and CALLER.slots % 128 == WORKER.slots % 128 == 0


# Two processes


def test_another_process_sees_every_record_in_order(segments, other_side):
    count = 100_000
    segment = segments(CHANNEL_BYTES)
    consumer = Consumer(segment.map, CALLER, WORKER)
    process = other_side("push", count, segment)
    for index in range(count):
        record = read(consumer)
        while record is None:
            ended = process.poll()
            os.sched_yield()
            record = read(consumer)
            assert record is not None or ended is None, "the other side ended at record {}: {}".format(
                index, ended
            )
        assert record == numbered(index)
    assert process.wait() == 0 and consumer.peek(wire.HEAD) is None


# Ctrl-C


def test_ctrl_c_while_publishing_loses_and_doubles_no_other_record(segments, interruptions):
    segment = segments(CHANNEL_BYTES)

    def prepare():
        segment.map[:] = bytes(len(segment.map))
        producer = Producer(segment.map, CALLER, WORKER)
        producer.publish(*numbered(1))
        return producer

    for producer in interruptions(prepare, lambda producer: producer.publish(*numbered(2))):
        assert producer.publish(*numbered(3))
        consumer = Consumer(segment.map, WORKER, CALLER)
        came = [read(consumer) for _ in range(4)]
        assert came in (
            [numbered(1), numbered(2), numbered(3), None],
            [numbered(1), numbered(3), None, None],
        )


def test_ctrl_c_while_consuming_skips_no_record(segments, interruptions):
    segment = segments(CHANNEL_BYTES)

    def prepare():
        segment.map[:] = bytes(len(segment.map))
        producer, consumer = Producer(segment.map, CALLER, WORKER), Consumer(segment.map, WORKER, CALLER)
        for index in range(3):
            producer.publish(*numbered(index))
        return producer, consumer

    for producer, consumer in interruptions(prepare, lambda both: both[1].advance()):
        head = consumer.head
        assert producer.room() == CAPACITY - 3 + head, "the two cursors of the consumer differ"
        assert [read(consumer) for _ in range(head, 4)] == [numbered(index) for index in range(head, 3)] + [
            None
        ]
