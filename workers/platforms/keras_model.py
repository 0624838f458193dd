"""What a Keras model says of its inputs and outputs, and how they are nested. The same for all backends.

A functional or sequential model tells them. A subclass of `keras.Model` does not: it has no specs, and takes what its `call` takes.
"""

from __future__ import annotations

import re

import numpy as np

from opexec.workers.platforms.arguments import check_dtype, check_shape, inputs_by_name
from opexec.workers.structure import flatten


class Signature:
    """The inputs and outputs of a Keras model.

    `inputs` and `outputs` are specs as `Platform` has them, or None. `names` are those of the inputs, in order, None where the model does not tell.
    """

    def __init__(self, model):
        self.inputs: list | None = None
        self.outputs: list | None = None
        self.names: list | None = None
        self.results: list = []  # symbolic tensors
        tensors = getattr(model, "inputs", None)
        if not tensors:
            return
        self._nested = _nested(model, "input", tensors)
        leaves = dict(_leaves(self._nested))
        if len(leaves) != len(tensors):  # two dicts in it have a key in common
            leaves = {_name(tensor): tensor for _, tensor in _leaves(self._nested)}
        self.inputs = [_spec(name, tensor, "string") for name, tensor in leaves.items()]
        self.names = list(leaves)
        self.tensors = leaves  # {name: symbolic tensor}
        self._results = _nested(model, "output", model.outputs)
        mapped(self._results, self.results.append)
        names = flatten(mapped(self._results, lambda tensor: np.empty(0)))[0]
        self.outputs = [_spec(name, tensor, "bytes") for name, tensor in zip(names, self.results)]

    def pack(self, values):
        """What the model is called with, for one value for each input, in order."""
        values = iter(values)
        return mapped(self._nested, lambda tensor: next(values))

    def unpack(self, values):
        """What the model returns, for one value for each of `results`, in order."""
        values = iter(values)
        return mapped(self._results, lambda tensor: next(values))

    def named(self, args):
        """``(name, array)`` for arrays by position; where the model does not tell its names, their places stand for them."""
        return zip(self.names or range(len(args)), args)

    def arrays(self, args, kwargs):
        """``(args, kwargs)`` for the model's own names: all by position if it has some, else just as they were given.

        Raises TypeError or ValueError for an input that the model does not take, of another dtype or shape.
        """
        if self.names is None or self.inputs is None:
            return args, kwargs
        arrays = inputs_by_name(self.names, args, kwargs)
        for spec in self.inputs:
            name, array = spec["name"], arrays[spec["name"]]
            check_dtype(name, array.dtype, spec["dtype"])
            check_shape(name, array.shape, spec["shape"])
        return list(arrays.values()), {}


def _nested(model, side, tensors):
    """The tensors of one side as the model's call nests them."""
    try:
        return getattr(model, side)
    except (AttributeError, ValueError):  # a model of layers that were never connected to anything else
        return tensors[0] if len(tensors) == 1 else list(tensors)


def _leaves(nested, key=None):
    """``(name, tensor)``; a tensor in a dict is called like its key."""
    if isinstance(nested, dict):
        return [pair for key, value in nested.items() for pair in _leaves(value, key)]
    if isinstance(nested, (list, tuple)):
        return [pair for value in nested for pair in _leaves(value)]
    return [(_name(nested) if key is None else key, nested)]


def mapped(nested, give):
    """The same nesting with other leaves, in one order for all uses."""
    if isinstance(nested, dict):
        return {key: mapped(value, give) for key, value in nested.items()}
    if isinstance(nested, (list, tuple)):
        items = [mapped(value, give) for value in nested]
        if hasattr(nested, "_fields"):
            return type(nested)(*items)
        return items if isinstance(nested, list) else tuple(items)
    return give(nested)


def _name(tensor):
    # TensorFlow adds the output's number; in a graph, Keras 2 also the scope: what is left is the input layer's name.
    return re.sub(r":\d+$", "", tensor.name)


def _spec(name, tensor, text):
    kind = getattr(tensor.dtype, "name", None) or str(tensor.dtype)
    shape = tensor.shape
    if hasattr(shape, "as_list"):
        shape = shape.as_list() if shape.rank is not None else None
    return {
        "name": name,
        "dtype": text if kind == "string" else kind,
        "shape": None if shape is None else list(shape),
    }
