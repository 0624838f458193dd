"""Models that the scenarios call. Valid for Python 3.7, because opexec's worker may be one. The garbage collector is off, as elsewhere."""

from __future__ import annotations

import gc
import time


def pure_python():
    """Computes in Python for a few milliseconds; the answer depends on the input: the sum of x + i modulo 7 over 20,000 numbers i."""
    gc.disable()

    def model(x):
        start, total = int(x[0]), 0
        for i in range(20_000):
            total += (start + i) % 7
        return {"y": x[:1] * 0 + total}

    return model


def sleeper():
    """Sleeps as many milliseconds as the input says, and gives it back."""
    gc.disable()

    def model(x):
        time.sleep(float(x[0]) / 1e3)
        return {"y": x}

    return model


def echo():
    """Gives its input back."""
    gc.disable()

    def model(x):
        return {"y": x}

    return model


def last():
    """The last element of the input, as shape (1,)."""
    gc.disable()

    def model(x):
        return {"y": x[-1:]}

    return model
