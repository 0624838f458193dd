"""The model of a platform that is not opexec's own, for the conformance suite. Python >= 3.7; subject.py says what is in here."""

import os

import numpy as np
from registered import matrix
from subject import BIAS, WEIGHTS, Subject, affine


def saved(folder):
    path = os.path.join(folder, "matrix.npz")
    np.savez(path, weights=WEIGHTS, bias=BIAS)
    return Subject(
        "registered.matrix",
        path,
        affine,
        output="y",
        inputs=[{"name": "x", "dtype": "float32", "shape": ["n", 4]}],
        outputs=[{"name": "y", "dtype": "float32", "shape": ["n", 3]}],
    )


def junk(folder):
    path = os.path.join(folder, "junk.npz")
    with open(path, "wb") as file:
        file.write(b"\xff" * 100)
    return "matrix", "registered.matrix", path, {}


SUBJECTS = {"matrix": saved}
VERSIONS = {"matrix": matrix.VERSION}
BAD = {"junk": junk}
