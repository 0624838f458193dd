"""Keras 3 on torch: inputs are tensors over the arrays' memory, results stay tensors, which `workers.structure` takes."""

from __future__ import annotations

import torch

from opexec.workers.platforms import Platform, torch_tensors
from opexec.workers.platforms.keras_model import Signature


def load(keras, options, make):
    """Make the model and return it as a `Platform`; keras.py has the options."""
    torch_tensors.set_threads(options)
    device = torch_tensors.device_of(options)
    with keras.device(str(device)):
        model = make()
    return Model(keras, model, device)


class Model(Platform):
    framework = "keras"

    def __init__(self, keras, model, device):
        self.version = keras.__version__
        self._model = model.eval()
        self._signature = Signature(model)
        self.inputs, self.outputs = self._signature.inputs, self._signature.outputs
        self._scope, self._device = keras.device, str(device)
        self._bound = lambda args, kwargs: torch_tensors.Bound(args, kwargs, device)

    def bind(self, args, kwargs):
        args, kwargs = self._signature.arrays(args, kwargs)
        return self._bound(
            [torch_tensors.argument(name, array) for name, array in self._signature.named(args)],
            {name: torch_tensors.argument(name, array) for name, array in kwargs.items()},
        )

    def run(self, bound, reserve):
        args, kwargs = bound.arguments()
        with torch.no_grad(), self._scope(self._device):
            if self._signature.names is None:
                return self._model(*args, training=False, **kwargs)
            return self._model(self._signature.pack(args), training=False)
