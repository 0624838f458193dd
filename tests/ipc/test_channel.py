"""What a record or a message names is there, lies inside, and was announced before; anything else is one kind of error that says so."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opexec.ipc.arena import Arena
from opexec.ipc.faults import PeerGone, ProtocolError
from opexec.ipc.packer import Packer
from opexec.ipc.segment import PAGE
from opexec.ipc.wire import PLACE_BITS, PLACE_MASK


@pytest.fixture
def packer(segments):
    return Packer(Arena(lambda size: segments(max(size, 4 * PAGE))))


# Plans


def test_a_plan_is_told_once_and_before_any_record_can_name_it(ends, packer):
    block = packer.pack(("x",), [np.arange(3.0)], "note")
    for _ in range(3):
        ends.caller.tell(block.plan, packer)
    plan = ends.worker.plan(block.plan.id)
    assert (plan.names, plan.shapes, plan.note) == (("x",), ((3,),), "note")
    assert ends.controls[1].drain() == []
    assert ends.worker.plan(block.plan.id) is plan


def test_both_ways_have_plans_of_their_own(ends, packer):
    block = packer.pack(("x",), [np.arange(3.0)], 0)
    ends.worker.tell(block.plan, packer)
    assert ends.caller.plan(block.plan.id).names == ("x",)
    with pytest.raises(ProtocolError):
        ends.worker.plan(block.plan.id)


def test_what_could_not_be_told_in_time_is_told_again(ends, packer, segments, descriptors):
    names = tuple("input {}".format(number) for number in range(20000))
    block = packer.pack(names, [np.zeros(1, "u1")] * len(names), 0)
    segment = segments(PAGE)
    with pytest.raises(TimeoutError):  # nobody reads, and the socket holds only a part of it
        ends.caller.tell(block.plan, packer, deadline=time.monotonic() + 0.01)
    for deadline in (0.0, time.monotonic() + 0.01):
        with pytest.raises(TimeoutError):
            ends.caller.offer(segment, deadline=deadline)
    assert block.plan.id not in ends.caller.told
    telling = threading.Thread(
        target=ends.caller.tell, args=(block.plan, packer), kwargs={"deadline": float("inf")}
    )
    telling.start()
    while telling.is_alive():
        ends.worker.handle_control()
    ends.worker.handle_control()
    assert ends.worker.plan(block.plan.id).names == names
    before = descriptors()
    for _ in range(3):
        ends.caller.offer(segment, deadline=float("inf"))
    ends.worker.handle_control()
    assert list(ends.worker.segments) == [segment.id]
    assert len(descriptors() - before) == 1, "its mapping holds one descriptor"


def test_what_is_told_without_waiting_arrives_once(ends, packer):
    names = tuple("input {}".format(number).ljust(2000) for number in range(1000))
    block = packer.pack(names, [np.zeros(1, "u1")] * len(names), 0)
    told, messages = 0, []
    while block.plan.id not in ends.caller.told:
        assert told < 100, "each time from the beginning"
        told += 1
        with contextlib.suppress(TimeoutError):
            ends.caller.tell(block.plan, packer, deadline=0.0)
        messages += ends.controls[1].drain()
    assert told > 2, "the socket holds a part of it"
    assert [message["type"] for message, _ in messages] == ["plan"]


def test_telling_waits_for_no_thread_that_is_kept_from_it_past_the_deadline(ends, packer):
    names = tuple("input {}".format(number) for number in range(20000))
    large = packer.pack(names, [np.zeros(1, "u1")] * len(names), 0)
    small = packer.pack(("x",), [np.zeros(1, "u1")], 0)
    telling = threading.Thread(target=ends.caller.tell, args=(large.plan, packer), daemon=True)
    telling.start()
    while not ends.caller._telling.locked():
        time.sleep(0.001)
    for deadline in (0.0, time.monotonic() + 0.01):
        with pytest.raises(TimeoutError):
            ends.caller.tell(small.plan, packer, deadline=deadline)
    while telling.is_alive():
        ends.worker.handle_control()
    ends.caller.tell(small.plan, packer, deadline=0.0)
    assert ends.worker.plan(small.plan.id).names == ("x",)


@pytest.mark.parametrize("id", [0, 1, 7, 2**39, 2**64 - 1])
def test_a_plan_that_was_never_announced_is_named(ends, id):
    with pytest.raises(ProtocolError, match="plan {}, which was never announced".format(id)):
        ends.worker.plan(id)


def test_plans_given_up_are_forgotten_and_those_in_use_are_not(ends, packer):
    held = packer.pack(("held",), [np.arange(3.0)], 0)
    ends.caller.tell(held.plan, packer)
    for size in range(1, 1000):
        block = packer.pack(("x",), [np.zeros(size, "u1")], 0)
        ends.caller.tell(block.plan, packer)
        assert ends.worker.plan(block.plan.id).shapes == ((size,),)
        packer.give(block)
    assert ends.worker.plan(held.plan.id).names == ("held",)
    assert len(ends.worker.plans) < 500, "plans pile up at the other side"


def test_a_plan_that_was_forgotten_is_told_again(ends, packer):
    arrays = [np.zeros(3)]
    first = packer.pack(("x",), arrays, 0)
    ends.caller.tell(first.plan, packer)
    packer.give(first)
    for size in range(10, 600):
        block = packer.pack(("y",), [np.zeros(size, "u1")], 0)
        ends.caller.tell(block.plan, packer)
        ends.worker.handle_control()
        packer.give(block)
    assert first.plan.id not in ends.worker.plans
    again = packer.pack(("x",), arrays, 0)
    ends.caller.tell(again.plan, packer)
    assert ends.worker.plan(again.plan.id).names == ("x",)


# Segments and places


@pytest.fixture
def offered(ends, packer):
    """A block of the caller's, and its segment as the worker has it."""
    block = packer.pack(("x",), [np.arange(16.0)], 0)
    ends.caller.offer(block.extent.segment)
    return block


def test_a_place_leads_to_the_bytes_that_were_written_there(ends, offered):
    for locate in (ends.worker.locate_block, ends.worker.locate):
        map, start = locate(offered.place, 128)
        assert np.ndarray((16,), "f8", map, start).tolist() == list(range(16))
    map, start = ends.worker.locate(offered.place + 9, 1)
    assert start == offered.extent.offset + 9


def test_the_last_bytes_of_a_segment_are_inside_and_the_next_are_not(ends, offered):
    id, size = offered.extent.segment.id, offered.extent.segment.size
    first = id << PLACE_BITS
    for locate in (ends.worker.locate, ends.worker.locate_block):
        assert locate(first | (size - 64), 64)[1] == size - 64
        assert locate(first | size, 0)[1] == size
        assert locate(first, size)[1] == 0
        for offset, length in [
            (size - 64, 65),
            (size, 1),
            (0, size + 1),
            (PLACE_MASK - 63, 0),
            (0, 2**39 - 1),
        ]:
            with pytest.raises(
                ProtocolError,
                match="{} bytes at {} of segment {}, which has {}".format(length, offset, id, size),
            ):
                locate(first | offset, length)


@pytest.mark.parametrize("id", [0, 5, 2**24 - 1])
def test_a_segment_that_was_never_announced_is_named(ends, offered, id):
    for locate in (ends.worker.locate, ends.worker.locate_block):
        with pytest.raises(ProtocolError, match="segment {}, which was never announced".format(id)):
            locate(id << PLACE_BITS, 1)


@pytest.mark.parametrize("off", [1, 8, 32, 63])
def test_a_block_that_is_not_aligned_is_refused(ends, offered, off):
    with pytest.raises(ProtocolError, match="{:#x}, which is not on 64 bytes".format(offered.place + off)):
        ends.worker.locate_block(offered.place + off, 1)


@settings(suppress_health_check=list(HealthCheck))
@given(
    place=st.integers(0, 2**64 - 1) | st.integers(0, 5 * PAGE),
    size=st.integers(0, 2**39 - 1) | st.integers(0, 5 * PAGE),
)
def test_whatever_a_record_names_lies_inside_or_is_refused(ends, offered, place, size):
    for locate in (ends.worker.locate, ends.worker.locate_block):
        try:
            map, start = locate(place, size)
        except ProtocolError:
            continue
        assert 0 <= start and start + size <= len(map)


def test_segments_come_with_their_own_descriptors(ends, segments):
    made = [segments(PAGE) for _ in range(40)]
    for segment in made:
        segment.map[0] = 100 + segment.id
        ends.caller.offer(segment)
    for segment in made:
        map, start = ends.worker.locate(segment.id << PLACE_BITS, 1)
        assert map[start] == 100 + segment.id


def test_views_outlive_the_channel(ends, offered):
    map, start = ends.worker.locate_block(offered.place, 128)
    view = np.ndarray((16,), "f8", map, start)
    ends.worker.segments.clear()
    for control in ends.controls:
        control.close()
    del map
    assert view.tolist() == list(range(16))


# Messages


def test_messages_that_are_not_the_channels_own_are_handed_on_in_order(ends):
    for number in range(3):
        ends.controls[0].send({"type": "load", "number": number})
    ends.worker.handle_control()
    assert [message["number"] for message, _ in ends.messages] == [0, 1, 2]


def test_the_end_of_the_other_side_is_seen_after_its_last_message(ends):
    ends.controls[0].send({"type": "load"})
    ends.controls[0].close()
    ends.worker.handle_control()
    assert len(ends.messages) == 1
    with pytest.raises(PeerGone):
        ends.worker.handle_control()


NO_NUMBER = [None, "x", float("inf"), float("nan"), [0], {}]


@pytest.mark.parametrize("id", NO_NUMBER, ids=repr)
def test_a_segment_whose_id_is_no_number_is_refused(ends, segments, id):
    ends.controls[0].send({"type": "segment", "id": id, "size": PAGE}, [segments(PAGE).fd])
    with pytest.raises(ProtocolError):
        ends.worker.handle_control()


@pytest.mark.parametrize("size", NO_NUMBER + [0, -1, PAGE + 1, 2**63, 2**64 - 1], ids=repr)
def test_a_segment_of_another_size_is_refused(ends, segments, size):
    ends.controls[0].send({"type": "segment", "id": 0, "size": size}, [segments(PAGE).fd])
    with pytest.raises(ProtocolError):
        ends.worker.handle_control()


@pytest.mark.parametrize("missing", ["id", "size"])
def test_a_segment_message_without_a_field_is_refused(ends, segments, missing):
    message = {"type": "segment", "id": 0, "size": PAGE}
    del message[missing]
    ends.controls[0].send(message, [segments(PAGE).fd])
    with pytest.raises(ProtocolError, match=missing):
        ends.worker.handle_control()


@pytest.mark.parametrize("count", [0, 2, 5])
def test_a_segment_message_needs_one_descriptor_and_keeps_none_else(ends, segments, count, descriptors):
    segment = segments(PAGE)
    before = descriptors()
    ends.controls[0].send({"type": "segment", "id": 0, "size": PAGE}, [segment.fd] * count)
    with pytest.raises(ProtocolError):
        ends.worker.handle_control()
    assert descriptors() == before, "descriptors were left open"


def test_descriptors_that_no_message_of_that_kind_has_are_closed(ends, packer, segments, descriptors):
    block = packer.pack(("x",), [np.zeros(3)], 0)
    segment = segments(PAGE)
    before = descriptors()
    ends.controls[0].send(block.plan.to_message(), [segment.fd])
    ends.controls[0].send({"type": "forget", "plans": []}, [segment.fd])
    try:
        ends.worker.handle_control()
    except ProtocolError:
        pass
    assert descriptors() == before, "descriptors were left open"


def test_a_descriptor_that_is_no_memory_is_refused(ends):
    left, right = socket.socketpair()
    reader = os.open("/", os.O_RDONLY)
    for fd in (left.fileno(), reader):
        ends.controls[0].send({"type": "segment", "id": 0, "size": 16}, [fd])
        with pytest.raises(ProtocolError):
            ends.worker.handle_control()
    os.close(reader)
    left.close()
    right.close()


@pytest.mark.parametrize("plans", ["missing", None, 5, [[]], [{}], {"a": 1}, "abc", [None], [1.5]], ids=repr)
def test_a_malformed_list_of_plans_to_forget_is_refused_or_names_none(ends, packer, plans):
    block = packer.pack(("x",), [np.zeros(3)], 0)
    ends.caller.tell(block.plan, packer)
    message = {"type": "forget"}
    if plans != "missing":
        message["plans"] = plans
    ends.controls[0].send(message)
    try:
        ends.worker.handle_control()
    except ProtocolError:
        pass
    assert list(ends.worker.plans) == [block.plan.id]


def test_a_malformed_plan_is_refused(ends):
    ends.controls[0].send(
        {"type": "plan", "id": 1, "tensors": [["x", "<f4", [2], 8, 64]], "note": 0, "size": 64, "table": -1}
    )
    with pytest.raises(ProtocolError, match="'x' lies at byte 64 and is 8 long; the block has 64 bytes"):
        ends.worker.handle_control()
    assert not ends.worker.plans


# Ctrl-C


def test_ctrl_c_while_messages_are_handled_loses_none(ends, packer, segments, interruptions):
    numbers = []

    def prepare():
        """A plan, a segment and a message of the sides' own, all unread."""
        numbers.append(packer.pack(("x",), [np.zeros(len(numbers) + 1)], 0))
        segment = segments(PAGE)
        ends.caller.tell(numbers[-1].plan, packer)
        ends.caller.offer(segment)
        ends.controls[0].send({"type": "load", "number": len(numbers)})
        return numbers[-1].plan.id, segment.id, len(numbers)

    for plan, segment, number in interruptions(prepare, lambda _: ends.worker.handle_control()):
        try:
            ends.worker.handle_control()
        except PeerGone:
            pass
        assert plan in ends.worker.plans, "a plan was lost"
        assert segment in ends.worker.segments, "a segment was lost"
        assert {"type": "load", "number": number} in [message for message, _ in ends.messages], (
            "a message was lost"
        )
