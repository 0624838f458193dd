"""The model's side. It is loaded once, whoever calls it."""

import os


def counter():
    """How many calls this worker has had, from all who call it, and its process."""
    calls = 0

    def model(x):
        nonlocal calls
        calls += 1
        return {"doubled": x * 2, "calls": calls, "worker": os.getpid()}

    return model
