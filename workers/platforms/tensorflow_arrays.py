"""Arrays as TensorFlow takes and gives them, in a session and outside of one. Its strings are bytes: a str is given as UTF-8."""

from __future__ import annotations

import numpy as np

from opexec.ipc import wire
from opexec.workers.arrays import bytes_to_array, native
from opexec.workers.platforms.texts import as_objects


def given(array, dtype):
    """What TensorFlow takes for a tensor of `dtype`, a `tf.DType`: the array's own memory where that can be, but for texts."""
    if dtype.name == "string":
        return as_objects(array)
    if wire.extension_name(array.dtype) is not None:
        # TensorFlow has a numpy dtype of its own for it.
        return native(array.view("u{}".format(array.itemsize))).view(dtype.as_numpy_dtype)
    return native(array)


def taker(kind):
    """What makes an array, over the same memory, of the value of a tensor of that kind (``"float32"``)."""
    if kind == "string":
        return _texts
    if kind in wire.EXTENSIONS:
        bits, dtype = "u{}".format(wire.EXTENSIONS[kind]), wire.extension_dtype(kind)
        return lambda value: np.asarray(value).view(bits).view(dtype)
    return np.asarray  # a value of rank 0 comes as numpy's scalar


def _texts(value):
    return value if isinstance(value, np.ndarray) else bytes_to_array(value)
