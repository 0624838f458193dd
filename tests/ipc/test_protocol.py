"""PROTOCOL.md says what the code does: bytes written by hand from the text are understood, and its constants are the code's."""

from __future__ import annotations

import glob
import importlib
import os
import re
import socket

import numpy as np
import pytest

from opexec.ipc import PROTOCOL, wire
from opexec.ipc.channel import Channel
from opexec.ipc.control import Control
from opexec.ipc.doorbell import Doorbell
from opexec.ipc.plan import Plan
from opexec.ipc.ring import CALLER, CHANNEL_BYTES, WORKER, Consumer, Producer, check_header, write_header

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

with open(os.path.join(ROOT, "ipc", "PROTOCOL.md"), encoding="utf-8") as file:
    TEXT = file.read()


def rows(first_column):
    """The cells of the tables' rows whose first cell matches."""
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and re.match(first_column + "$", cells[0]):
            yield cells


# What is named in the text

CONSTANTS = [(cells[0].strip("`"), cells[1].strip("`")) for cells in rows(r"`\w+\.[A-Z_]+`")]


@pytest.mark.parametrize("name, value", CONSTANTS)
def test_a_constant_in_the_text_is_that_of_the_code(name, value):
    module, _, attribute = name.partition(".")
    assert getattr(importlib.import_module("opexec.ipc." + module), attribute) == int(value, 0)


def test_the_version_in_the_text_is_that_of_the_code():
    assert len(CONSTANTS) >= 16
    assert re.search(r"Version \*\*(\d+)\*\* \(`ipc\.PROTOCOL`", TEXT).group(1) == str(PROTOCOL)


def test_words_and_slots_lie_where_the_text_says():
    places = {cells[1]: int(cells[0]) for cells in rows(r"\d{3,}")}
    assert places["request tail"] == 8 * CALLER.tail and places["response head"] == 8 * CALLER.head
    assert places["response tail"] == 8 * WORKER.tail and places["request head"] == 8 * WORKER.head
    assert places["caller's nap"] == 8 * CALLER.asleep and places["worker's nap"] == 8 * WORKER.asleep
    assert places["when the caller rang"] == 8 * CALLER.rang
    assert places["when the worker rang"] == 8 * WORKER.rang
    assert places["whether the caller is crowded"] == 8 * CALLER.crowded
    assert places["whether the worker is crowded"] == 8 * WORKER.crowded
    assert places["request slots"] == CALLER.slots and places["response slots"] == WORKER.slots


def test_every_message_is_in_the_text():
    said = set()
    for room in ("ipc", "workers", *(os.path.join("opexec", one) for one in ("connection", "processes"))):
        for path in glob.glob(os.path.join(ROOT, room, "*.py")):
            with open(path, encoding="utf-8") as file:
                said.update(re.findall(r'"type": "(\w+)"', file.read()))
    assert said >= {"hello", "channel", "plan", "segment"}
    assert {cells[0].strip("`") for cells in rows(r"`[a-z]+`")} == said


def test_every_field_of_a_plan_is_in_the_text():
    (fields,) = [cells[2] for cells in rows("`plan`")]
    plan = Plan.lay_out(1, ("x",), [np.zeros(2)], None)
    assert set(fields.split("`")[1].split()) | {"type"} == set(plan.to_message())


# Written by hand

HEADER = b"opexec\0\0\x01\0\0\0\0\0\0\0\x00\x04\0\0\0\0\0\0\x80\0\0\0\0\0\0\0"

# Call 5 by plan 7: block at byte 128 of segment 2, block at byte 192 of segment 3 released, one tensor at byte 9 of segment 2.
CALL = (
    b"\x01\0\0\0\0\0\0\0"
    b"\x05\0\0\0\0\0\0\0"
    b"\x07\0\0\0\0\0\0\0"
    b"\x80\0\0\0\0\x02\0\0"
    b"\xc1\0\0\0\0\x03\0\0" + bytes(24) + b"\x09\0\0\0\0\x02\0\0" + bytes(56)
)
# The block at byte 64 of segment 4, and the one at byte 0 of segment 0.
RELEASE = b"\x02\0\0\0\0\0\0\0\x41\0\0\0\0\x04\0\0\x01\0\0\0\0\0\0\0" + bytes(104)
# The answer to call 5 by plan 8, in the block at byte 64 of segment 4, 24 bytes of it copied.
RESULT = (
    b"\x03\0\0\0\0\0\0\0"
    b"\x05\0\0\0\0\0\0\0"
    b"\x08\0\0\0\0\0\0\0"
    b"\x40\0\0\0\0\x04\0\0" + bytes(8) + b"\x18\0\0\0\0\0\0\0" + bytes(80)
)
FAILURE = b"\x04\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0" + bytes(112)


@pytest.fixture
def map():
    """A channel segment with two records in each ring, none of them read."""
    map = bytearray(CHANNEL_BYTES)
    map[0:32] = HEADER
    map[128] = map[256] = 2
    map[4096 : 4096 + 256] = CALL + RELEASE
    map[135168 : 135168 + 256] = RESULT + FAILURE
    return map


def test_a_header_by_hand(map):
    check_header(map, PROTOCOL)
    written = bytearray(CHANNEL_BYTES)
    write_header(written, PROTOCOL)
    assert bytes(written) == HEADER + bytes(CHANNEL_BYTES - 32)


def test_records_by_hand(map):
    requests = Consumer(map, WORKER, CALLER)
    assert requests.peek(wire.HEAD) == (wire.CALL, 5, 7, 2 << 40 | 128, 3 << 40 | 192 | wire.PRESENT, 0, 0, 0)
    assert requests.peek(wire.OUTSIDE)[0] == 2 << 40 | 9
    requests.advance()
    released = (4 << 40 | 64 | wire.PRESENT, 0 << 40 | 0 | wire.PRESENT)
    assert requests.peek(wire.RELEASES) == (wire.RELEASE,) + released + (0,) * 13
    requests.advance()
    assert requests.peek(wire.HEAD) is None and map[264] == 2

    responses = Consumer(map, CALLER, WORKER)
    assert responses.peek(wire.HEAD) == (wire.RESULT, 5, 8, 4 << 40 | 64, 0, 24, 0, 0)
    responses.advance()
    assert responses.peek(wire.HEAD) == (wire.FAILURE, 6, 0, 0, 0, 0, 0, 0)
    responses.advance()
    assert responses.peek(wire.HEAD) is None and map[136] == 2


def test_records_of_the_code_are_those_by_hand(map):
    written = bytearray(CHANNEL_BYTES)
    requests, responses = Producer(written, CALLER, WORKER), Producer(written, WORKER, CALLER)
    released = 4 << 40 | 64 | wire.PRESENT
    requests.publish(wire.CALL, 5, 7, 2 << 40 | 128, 3 << 40 | 192 | wire.PRESENT, 0, (2 << 40 | 9,))
    requests.publish_long(wire.RELEASES, wire.RELEASE, released, wire.PRESENT, *[0] * 13)
    responses.publish(wire.RESULT, 5, 8, 4 << 40 | 64, 0, 24)
    responses.publish(wire.FAILURE, 6, 0, 0, 0, 0)
    assert written[32:] == map[32:]


def test_a_nap_by_hand(map, eventfd):
    bells = eventfd(), eventfd()
    words = memoryview(map).cast("Q")
    caller, worker = Doorbell(words, CALLER, WORKER, *bells), Doorbell(words, WORKER, CALLER, *bells[::-1])
    assert worker.announce(2) and map[272] == 1
    assert caller.ring() is True and os.read(bells[1], 8) == b"\x01\0\0\0\0\0\0\0"
    caller.ring()
    with pytest.raises(BlockingIOError):  # once for each nap
        os.read(bells[1], 8)
    worker.withdraw()
    assert map[272] == 2 and caller.ring() is False
    map[272] = 3  # it sleeps again
    assert caller.ring() is True and os.read(bells[1], 8) == b"\x01\0\0\0\0\0\0\0"
    map[144] = 7
    assert worker.ring() is True and os.read(bells[0], 8) == b"\x01\0\0\0\0\0\0\0"


# Plan 7: "x", two texts in 64 bytes at byte 0; "y", a 2 x 3 array of float32 at byte 64; "z", 4 bytes outside the block; note 1.
PLAN = (
    b"\x86"
    b"\xa4type\xa4plan"
    b"\xa2id\x07"
    b"\xa7tensors\x93"
    b"\x95\xa1x\xa7#string\x91\x02\x40\x00"
    b"\x95\xa1y\xa3<f4\x92\x02\x03\x18\x40"
    b"\x95\xa1z\xa3|u1\x91\x04\x04\xff"
    b"\xa4note\x01"
    b"\xa4size\xcc\x80"
    b"\xa5table\xff"
)
TEXTS = (
    b"\x00\0\0\0\0\0\0\0"  # the first begins here,
    b"\x03\0\0\0\0\0\0\0"  # the second here,
    b"\x07\0\0\0\0\0\0\0"  # and ends here
    b"a\xc3\xa9"
    b"\x00\xed\xa0\x80" + b"\xff" * 33
)
NUMBERS = b"\0\0\0\0\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40\0\0\xa0\x40"


def test_a_plan_and_its_block_by_hand(map, eventfd):
    ours, theirs = socket.socketpair()
    control = Control(ours)
    channel = Channel(map, WORKER, CALLER, control, (eventfd(), eventfd()), None)
    theirs.sendall(bytes([len(PLAN), 0, 0, 0]) + b"\0\0\0\0" + PLAN)
    plan = channel.plan(7)
    control.close()
    theirs.close()
    assert (plan.names, plan.shapes, plan.note, plan.outside) == (
        ("x", "y", "z"),
        ((2,), (2, 3), (4,)),
        1,
        (2,),
    )

    text, numbers, outside = plan.views(bytearray(64) + TEXTS + NUMBERS + bytes(40), 64)
    assert plan.decode(0, text).tolist() == ["aé", "\0\ud800"]
    assert numbers.tolist() == [[0, 1, 2], [3, 4, 5]] and outside is None


def test_a_plan_and_a_block_of_the_code_are_those_by_hand():
    from opexec.ipc.packing import unpack
    from opexec.ipc.plan import text_capacities

    arrays = [np.array(["aé", "\0\ud800"], object), np.arange(6, dtype="f4").reshape(2, 3), np.zeros(4, "u1")]
    encoded, capacities = text_capacities(arrays)
    plan = Plan.lay_out(7, ("x", "y", "z"), arrays, 1, (2,), capacities)
    assert plan.to_message() == unpack(PLAN)
    memory = bytearray(b"\xff" * 128)
    plan.fill(plan.views(memory, 0), arrays, encoded)
    assert bytes(memory[:88]) == TEXTS + NUMBERS
