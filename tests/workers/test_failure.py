"""An exception is told as its author would see it: from the model's first frame on."""

from __future__ import annotations

import os

import pytest

from opexec.workers import failure

CODE = """
def outer():
    inner()

def inner():
    raise ValueError("of the model")
"""


def told(path):
    """The traceback that is told of an error in a file of that path, which nothing of ours called."""
    names: dict = {}
    exec(compile(CODE, path, "exec"), names)
    with pytest.raises(ValueError) as caught:
        names["outer"]()
    error = caught.value
    return failure.describe(error.with_traceback(error.__traceback__.tb_next))["traceback"]


OURS = os.path.dirname(os.path.abspath(failure.__file__))


@pytest.mark.parametrize(
    "path", [os.path.join(OURS, "loop.py"), os.path.join(OURS, "platforms", "python.py")]
)
def test_our_own_frames_are_left_out(path):
    assert "in outer" not in told(path) and "in inner" in told(path)


@pytest.mark.parametrize(
    "path",
    [
        os.path.join(OURS + "_2", "model.py"),
        os.path.join(os.sep, "models", "opexec", "workers", "model.py"),
        os.path.join(os.sep, "models", "runs_inprocess.py"),
    ],
)
def test_a_model_whose_path_is_like_ours_keeps_its_frames(path):
    assert "in outer" in told(path) and "in inner" in told(path)
