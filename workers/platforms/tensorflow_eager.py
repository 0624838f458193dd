"""numpy arrays as tensors of TensorFlow 2 outside of a session, and back.

Which call gives a tensor over an array's memory depends on the version: `tf.convert_to_tensor` up to 2.10 or so, DLPack later. So both are
tried, and where the tensor lies is looked at. Through DLPack an array must begin on 64 bytes, or TensorFlow ends the process, and must
be writable; what no way takes is copied anew for each run.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from opexec.workers.arrays import address
from opexec.workers.platforms.tensorflow_arrays import given, taker

_ALIGNMENT = 64


class Input:
    """An array at one place, as the tensor that a function takes: `tensor()` is to be called for each run."""

    __slots__ = ("_array", "_dtype", "_over")

    def __init__(self, array, dtype):
        """`array` is of the numpy dtype that `dtype`, a `tf.DType`, goes by, or of texts for `tf.string`."""
        self._array, self._dtype = given(array, dtype), dtype
        self._over = None if dtype == tf.string else _over(self._array, dtype)

    @property
    def copies(self):
        """Whether each run copies the array."""
        return self._over is None

    def tensor(self):
        if self._over is not None:
            return self._over
        return tf.constant(self._array, self._dtype)


def as_array(value):
    """The array of a tensor, in its memory; whatever is no dense tensor as it is."""
    # tf.is_tensor says yes to ragged and sparse ones too.
    if not isinstance(value, tf.Tensor):
        return value
    return taker(value.dtype.name)(value._numpy())  # .numpy() copies


def _over(array, dtype):
    """A tensor over the array's memory, or None if there is no way to it."""
    if array.size == 0:
        return tf.constant(array, dtype)  # nothing in it can change
    if address(array) % _ALIGNMENT:
        return None
    for convert in (_through_dlpack, tf.convert_to_tensor):
        try:
            tensor = convert(array)
        except Exception:  # each version has its own for what it does not take
            continue
        if (
            tensor is not None
            and tensor.dtype == dtype
            and address(np.asarray(tensor._numpy())) == address(array)
        ):
            return tensor
    return None


def _through_dlpack(array):
    if not hasattr(array, "__dlpack__") or not array.flags.writeable:
        return None
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
