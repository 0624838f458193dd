"""Keras on TensorFlow 2, as a `tf.function` that is traced once: for inputs of any size where the model leaves it open.

It is not compiled by XLA, as `Model.predict` of Keras 3 would: that compiles anew for every size that comes.
"""

from __future__ import annotations

import tensorflow as tf

from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import cuda_index
from opexec.workers.platforms.dtypes import name_of
from opexec.workers.platforms.keras_model import Signature, mapped
from opexec.workers.platforms.tensorflow_eager import Input, as_array


def load(keras, options, make):
    """Make the model and return it as a `Platform`; keras.py has the options."""
    device = _device(options)
    if options.get("threads"):
        _set_threads(options["threads"])
    with tf.device(device):
        return Model(keras, make(), device)


class Model(Platform):
    framework = "keras"
    aligned = True

    def __init__(self, keras, model, device):
        self.version = keras.__version__
        self._model = model
        #: None where TensorFlow has no other device: to name it for each call takes longer than many a layer.
        self._device = device if len(tf.config.list_logical_devices()) > 1 else None
        self._signature = Signature(model)
        self.inputs, self.outputs = self._signature.inputs, self._signature.outputs
        if self.inputs is None:
            self._call = tf.function(lambda *args, **kwargs: model(*args, training=False, **kwargs))
            return
        tensors = [
            tf.TensorSpec(spec["shape"], spec["dtype"], "input_{}".format(place))
            for place, spec in enumerate(self.inputs)
        ]
        function = tf.function(lambda *args: model(self._signature.pack(args), training=False))
        self._call = function.get_concrete_function(*tensors)

    def bind(self, args, kwargs):
        args, kwargs = self._signature.arrays(args, kwargs)
        return [_input(name, array) for name, array in self._signature.named(args)], {
            name: _input(name, array) for name, array in kwargs.items()
        }

    def run(self, bound, reserve):
        args, kwargs = bound
        if self._device is None:
            return self._called(args, kwargs)
        with tf.device(self._device):
            return self._called(args, kwargs)

    def _called(self, args, kwargs):
        tensors = {name: one.tensor() for name, one in kwargs.items()}
        return mapped(self._call(*[one.tensor() for one in args], **tensors), as_array)


def _input(name, array):
    kind = name_of(array.dtype)
    try:
        return Input(array, tf.as_dtype(kind))
    except TypeError as error:
        raise TypeError(
            "input {!r} is {}; tensorflow {} has no tensor of it: convert it first".format(
                name, kind, tf.__version__
            )
        ) from error


def _set_threads(threads):
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        # It computes already, in the caller's own process; what was set first holds.
        pass


def _device(options):
    gpu = cuda_index(options)
    if gpu is None:
        return "/CPU:0"
    from opexec.workers.platforms.tensorflow_session import check_gpu

    for found in check_gpu(gpu):  # it must be the same for all
        try:
            tf.config.experimental.set_memory_growth(found, True)  # other models may compute there too
        except (RuntimeError, ValueError):
            pass  # as with threads: what was set first holds
    return "/GPU:{}".format(gpu)
