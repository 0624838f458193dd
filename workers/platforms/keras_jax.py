"""Keras 3 on jax: jitted, with the weights as arguments, so that they are no constants of the compiled code. XLA compiles once for each shape."""

from __future__ import annotations

import jax

from opexec.workers.platforms import Platform
from opexec.workers.platforms.jax import Bound, caller, device_of, placed, set_threads
from opexec.workers.platforms.keras_model import Signature


def load(keras, options, make):
    """Make the model and return it as a `Platform`; keras.py has the options."""
    set_threads(options)
    device = device_of(options)
    with jax.default_device(device):
        return Model(keras, make(), device)


class Model(Platform):
    framework = "keras"

    def __init__(self, keras, model, device):
        self.version = keras.__version__
        self.aligned = device.platform == "cpu"
        self._device = device
        self._there = caller(device)
        self._signature = signature = Signature(model)
        self.inputs, self.outputs = signature.inputs, signature.outputs
        self._model = model
        self._variables: list = []
        self._values: list | None = None

        def call(values, args, kwargs):
            if signature.names is not None:
                args = (signature.pack(args),)
            # Not model.stateless_call: that insists that the model's own call takes `training`.
            with keras.StatelessScope(state_mapping=list(zip(self._variables, values))):
                return model(*args, training=False, **kwargs)

        self._call = jax.jit(call)

    def bind(self, args, kwargs):
        args, kwargs = self._signature.arrays(args, kwargs)
        return Bound(
            [placed(name, array, self._device) for name, array in self._signature.named(args)],
            {name: placed(name, array, self._device) for name, array in kwargs.items()},
        )

    def run(self, bound, reserve):
        args, kwargs = bound.arguments()
        if self._values is None:
            self._values = self._there(self._weights, (args, kwargs), {})
        return self._there(self._call, (self._values, args, kwargs), {})

    def _weights(self, args, kwargs):
        """The values of the model's variables, on the device."""
        if not self._model.built:
            self._model(
                *args, training=False, **kwargs
            )  # a model that does not tell its inputs has none before
        self._variables = self._model.trainable_variables + self._model.non_trainable_variables
        return [jax.device_put(one.value, self._device) for one in self._variables]
