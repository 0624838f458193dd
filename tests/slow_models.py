"""Models whose calls take as long as a test says, in OPEXEC_TEST_SLEEP. Python >= 3.7, standard library and numpy."""

from __future__ import annotations

import os
import time

STALL_AT, STALL_SECONDS = 40, 0.3


def sleeping():
    """Sleeps so many seconds, and returns x."""
    seconds = float(os.environ["OPEXEC_TEST_SLEEP"])

    def call(x):
        time.sleep(seconds)
        return {"y": x}

    return call


def stalling_once():
    """Quick, but for one call, the `STALL_AT`th."""
    calls = []

    def call(x):
        calls.append(1)
        if len(calls) == STALL_AT:
            time.sleep(STALL_SECONDS)
        return {"y": x}

    return call


def failing_later():
    """Fails from its ninth call on."""
    calls = []

    def call(x):
        calls.append(1)
        if len(calls) > 8:
            raise RuntimeError("no more of this")
        return {"y": x}

    return call
