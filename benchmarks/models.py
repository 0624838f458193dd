"""The models that every contender calls. Valid for Python 3.7, because opexec's worker may be one.

A factory returns a callable that takes the inputs as keywords. The garbage collector is off on the model's side, as it
is on the caller's side of every contender.
"""

from __future__ import annotations

import gc


def echo():
    """Equal output: gives its input back. Whoever answers from another process has to copy it once."""
    gc.disable()

    def model(x):
        return {"y": x}

    return model


def tiny():
    """Tiny output: the last element of the input, as shape (1,), so the whole message must have arrived."""
    gc.disable()

    def model(x):
        return {"y": x[-1:]}

    return model


def hundred():
    """Takes 100 inputs of shape (10, 5), x0 to x99; gives the last element of the last, as shape (1,)."""
    gc.disable()

    def model(**inputs):
        return {"y": inputs["x99"][-1, -1:]}

    return model
