"""Models that break their own worker: they write where nobody but opexec should, as a bug in native code would.

What is to be broken is JSON in the environment variable OPEXEC_TEST_BREAK. The first call goes well; the second one breaks things. Python >= 3.7.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys

import numpy as np

from opexec.ipc import plan, ring, wire
from opexec.ipc.control import Control
from opexec.ipc.doorbell import Doorbell

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import models

RING_FIELDS = ("kind", "id", "plan", "place", "release", "copied", "spare", "spare2")


def instruction():
    return json.loads(os.environ["OPEXEC_TEST_BREAK"])


def channel_memory():
    """The channel segment, as bytes at an address: no object of opexec's is asked for it."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(text, 16) for text in line.split()[0].split("-"))
            if end - start == ring.CHANNEL_BYTES and "opexec" in line:
                return memoryview((ctypes.c_char * (end - start)).from_address(start)).cast("B")
    raise AssertionError("no channel segment is mapped")


def the(kind):
    """The one object of that class in this process."""
    (found,) = [one for one in gc.get_objects() if type(one) is kind]
    return found


def stop():
    """Do nothing more, so that what was broken stays as it is."""
    the(Doorbell).ring()
    while True:
        signal.pause()


def slot(number):
    return ring.WORKER.slots + number % ring.SLOTS * ring.SLOT_BYTES


def forger():
    """Answers its second call itself, with a copy of its first answer in which fields are changed as told."""
    changes = instruction()
    memory = channel_memory()
    words = memory.cast("Q")
    gate = models.Gate(os.environ["OPEXEC_TEST_GATE"]) if "OPEXEC_TEST_GATE" in os.environ else None
    calls = []

    def call(x):
        calls.append(1)
        if len(calls) == 2:
            if gate is not None:
                gate.pass_through()
            number = words[ring.WORKER.tail]
            fields = dict(zip(RING_FIELDS, wire.HEAD.unpack_from(memory, slot(number - 1))))
            fields["id"] += 1
            for name, change in changes.items():
                fields[name] = fields[name] + change["add"] if isinstance(change, dict) else change
            wire.HEAD.pack_into(memory, slot(number), *(fields[name] % 2**64 for name in RING_FIELDS))
            words[ring.WORKER.tail] = number + 1
            stop()
        return {"y": x * 2}

    return call


def scribbler():
    """In its second call writes into words of the channel: ``{"worker.tail": {"add": 2}, ...}``."""
    changes = instruction()
    words = channel_memory().cast("Q")
    calls = []

    def call(x):
        calls.append(1)
        if len(calls) == 2:
            for name, change in changes.items():
                side, field = name.split(".")
                at = getattr({"worker": ring.WORKER, "caller": ring.CALLER}[side], field)
                words[at] = (words[at] + change["add"] if isinstance(change, dict) else change) % 2**64
            if not os.environ.get("OPEXEC_TEST_GO_ON"):
                stop()
        return {"y": x * 2}

    return call


def planner():
    """Announces plans that are changed as told: a list of ``[path, value]``, with the path a list of keys."""
    changes = instruction()
    original = plan.Plan.to_message

    def to_message(self):
        message = json.loads(json.dumps(original(self)))
        for path, value in changes:
            place = message
            for key in path[:-1]:
                place = place[key]
            if value == "DELETE":
                del place[path[-1]]
            else:
                place[path[-1]] = value
        return message

    plan.Plan.to_message = to_message
    return lambda x: {"y": x * 2}


def encoder():
    """Writes texts whose offsets, or bytes, are changed as told."""
    change = instruction()
    original = wire.encode_texts

    def encode_texts(array):
        kind, offsets, payload = original(array)
        if "offsets" in change:
            offsets = np.array(change["offsets"], np.uint64)
        if "payload" in change:
            payload = bytes(change["payload"])
        return kind, offsets, payload

    for module in (wire, plan):
        module.encode_texts = encode_texts
    return lambda x: np.array(["one", "two"], object)


def chatterbox():
    """In its second call sends control messages that nobody expects: ``[message, ...]``, and bytes that are none (a text)."""
    said = instruction()
    calls = []

    def call(x):
        calls.append(1)
        if len(calls) == 2:
            say(said)
            stop()
        return {"y": x * 2}

    return call


def say(said):
    control = the(Control)
    for message in said:
        if isinstance(message, str):
            os.write(control.fileno(), message.encode("latin-1"))
        else:
            control.send(message)


def loud_while_loading():
    say(instruction())
    while True:
        signal.pause()


def silent():
    """A worker that never rings."""
    Doorbell.ring = lambda self, *args: False
    return lambda x: {"y": x * 2}


def sleepless():
    """A worker that sleeps and says something else: whatever is told stands in its sleep word instead of what it announced."""
    word = instruction()
    original = Doorbell.announce
    words = channel_memory().cast("Q")

    def announce(self, head):
        sleeps = original(self, head)
        if sleeps:
            words[ring.WORKER.asleep] = word % 2**64
        return sleeps

    Doorbell.announce = announce
    return lambda x: {"y": x * 2}


def failing_forger():
    """Answers its second call with a forged failure, after saying what is told."""
    told = instruction()
    memory = channel_memory()
    words = memory.cast("Q")
    calls = []

    def call(x):
        calls.append(1)
        if len(calls) == 2:
            say(told["say"])
            number = words[ring.WORKER.tail]
            wire.HEAD.pack_into(memory, slot(number), told["kind"], 2, 0, 0, 0, 0, 0, 0)
            words[ring.WORKER.tail] = number + 1
            stop()
        return {"y": x * 2}

    return call
