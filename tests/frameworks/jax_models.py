"""jax's models for the conformance suite; subject.py says what is in here."""

import os

import jax
import jax_factories
import numpy as np
from jax import export as jax_export
from subject import Subject

FACTORIES = os.path.abspath(jax_factories.__file__)


def direct(x):
    return np.asarray(jax.jit(jax_factories.affine())(x))


def factory(folder):
    return Subject("jax", FACTORIES + ":affine", direct)


def jitted(folder):
    return Subject("jax", FACTORIES + ":jitted", direct)


def eager(folder):
    return Subject("jax", FACTORIES + ":affine", direct, {"jit": False})


def export(folder):
    path = os.path.join(folder, "model.jaxexport")
    (count,) = jax_export.symbolic_shape("n")
    exported = jax_export.export(jax_factories.jitted(), platforms=["cpu", "cuda"])(
        jax.ShapeDtypeStruct((count, 4), np.float32)
    )
    with open(path, "wb") as file:
        file.write(exported.serialize())
    return Subject(
        "jax",
        path,
        lambda x: np.asarray(exported.call(x)),
        input="input",
        inputs=[{"name": "input", "dtype": "float32", "shape": ["n", 4]}],
        outputs=[{"name": "output", "dtype": "float32", "shape": ["n", 3]}],
        empty=False,  # a symbolic size is 1 or more
    )


def echo(folder, dtype):
    return Subject("jax", FACTORIES + ":echo", None)


def junk(folder):
    path = os.path.join(folder, "model.jaxexport")
    with open(path, "wb") as file:
        file.write(b"junk" * 100)
    return "jax", "jax", path, {}


SUBJECTS = {"factory": factory, "jitted": jitted, "eager": eager, "export": export}
DTYPES = dict.fromkeys(
    (
        "bool int8 int16 int32 uint8 uint16 uint32 float16 float32 complex64 "
        "bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3b11fnuz"
    ).split(),
    True,
)
DTYPES.update(dict.fromkeys(["int64", "uint64", "float64", "complex128"], False))
BAD = {"junk": junk}
