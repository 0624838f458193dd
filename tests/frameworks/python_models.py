"""Plain Python's model for the conformance suite. Python >= 3.7; subject.py says what is in here."""

import importlib.util
import os
import platform

import python_factories
from subject import Subject, affine

FACTORIES = os.path.abspath(python_factories.__file__)


def factory(folder):
    return Subject("python", FACTORIES + ":affine", affine)


def echo(folder, dtype):
    return Subject("python", FACTORIES + ":echo", None)


SUBJECTS = {"factory": factory}
VERSIONS = {"python": platform.python_version()}
DTYPES = dict.fromkeys(
    (
        "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
    ).split(),
    True,
)
DTYPES.update(dict.fromkeys(["bfloat16", "float8_e5m2"], importlib.util.find_spec("ml_dtypes") is not None))
TEXTS = "string"
