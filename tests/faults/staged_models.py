"""A model whose worker meets a fault at a stage of its life that it is told, once. Python >= 3.7.

The faults and stages are texts. What is to happen in a call is armed by the call before it: ``model(x, arm="FAULT while STAGE")``. What is to
happen while loading stands in the file that OPEXEC_TEST_FAULT names; whoever reads it takes it away.
"""

from __future__ import annotations

import ctypes
import os
import signal

import numpy as np

from opexec.ipc.doorbell import Doorbell
from opexec.workers.loop import Server


class Mishap(Exception):
    pass


def raise_():
    raise Mishap("on purpose")


FAULTS = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "exception": raise_,
    # Past `memory_limit`.
    "memory": lambda: np.ones(1 << 30, np.uint8),
}


def once(owner, name, fault, before):
    """Have the next call of a method of `owner` meet the fault, and no other."""
    original = getattr(owner, name)

    def method(self, *args):
        setattr(owner, name, original)
        if before:
            FAULTS[fault]()
        result = original(self, *args)
        if not before:
            FAULTS[fault]()
        return result

    setattr(owner, name, method)


def staged():
    place = os.environ["OPEXEC_TEST_FAULT"]
    if os.path.exists(place):
        with open(place) as file:
            fault = file.read()
        os.unlink(place)
        FAULTS[fault]()
    armed = []

    def call(x, arm):
        if armed:
            FAULTS[armed.pop()]()
        fault, _, stage = str(arm).partition(" while ")
        if stage == "in the model":
            armed.append(fault)
        elif stage == "before reading":
            # The answer to this very call is on its way yet.
            once(Server, "_answer", fault, before=True)
        elif stage == "writing":
            # The second from now: the first writes the answer to this call.
            original = Server._outputs

            def first(self, result):
                Server._outputs = original
                once(Server, "_outputs", fault, before=False)
                return original(self, result)

            Server._outputs = first
        elif stage == "before ringing":
            ring = Doorbell.ring

            def rung(self):
                Doorbell.ring = ring
                once(Doorbell, "ring", fault, before=True)
                return ring(self)

            Doorbell.ring = rung
        elif stage == "after answering":
            answer = Server._answer

            def answered(self, record):
                Server._answer = answer
                woke = answer(self, record)
                FAULTS[fault]()
                return woke

            Server._answer = answered
        return {"y": x * 2}

    return call
