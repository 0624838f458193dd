"""TorchScript packages. What ``forward`` takes decides how it is called:

- one ``Dict[str, Tensor]``, ``Dict[str, List[str]]`` or ``Dict[str, Union[List[str], Tensor]]``: all inputs as one dict;
- otherwise tensors and lists of texts, each by the name of its argument. Arguments with defaults may be left out, and so may inputs of
  the package's spec that are no arguments at all.

It returns a dict; a NamedTuple, whose fields are the names; a tuple of dicts, for a dict of TorchScript holds tensors or texts and not both; or
one tensor or list of texts where the spec has one output.
"""

from __future__ import annotations

import os
import re

import numpy as np
import torch

from opexec.workers.platforms import torchscript
from opexec.workers.platforms.packaged import Wrapped, by_name, text_array, texts_of
from opexec.workers.platforms.packaged_ops import distinct
from opexec.workers.platforms.torch_tensors import Listed, argument, device_of


def load(contents):
    """Load ``0/data/model.pt``, after the custom ops that it needs."""
    for path in distinct(contents.custom_ops):
        torch.ops.load_library(path)
    options = contents.known_options()
    return Model(
        torchscript.load(os.path.join(contents.data, "model.pt"), options), contents, device_of(options)
    )


class Model(Wrapped):
    def __init__(self, model, contents, device):
        super().__init__(model)
        self._module = model.module
        self._specs = contents.inputs
        self._outputs = [spec["name"] for spec in contents.outputs]
        self._texts = texts_of(contents.outputs)
        self._device = device
        self._on_cpu = {name for name, kind in contents.devices.items() if kind == "CPU"}
        self._lists = model.lists
        arguments = model.arguments or []
        self._known = None if model.arguments is None else [one.name for one in arguments]
        self._takes_dict = len(arguments) == 1 and _is_dict(arguments[0])
        required = {one.name for one in arguments if not _has_default(one)}
        if self._known is None:
            self.optional = set()
        elif self._takes_dict:  # the model itself asks for what it needs
            self.optional = {spec["name"] for spec in contents.inputs}
        else:
            self.optional = {spec["name"] for spec in contents.inputs} - required

    def bind(self, args, kwargs):
        given = by_name(self._specs, args, kwargs)
        if self._known is not None and not self._takes_dict:
            unknown = [name for name in given if name not in self._known]
            if unknown:
                raise TypeError(
                    "forward() has no argument {!r}: it takes {}. Leave the input out".format(
                        unknown[0], ", ".join(self._known) or "nothing"
                    )
                )
        return {name: argument(name, array, name in self._lists) for name, array in given.items()}

    def run(self, bound, reserve):
        given = {name: self._value(name, one) for name, one in bound.items()}
        with torch.no_grad():
            result = self._module(given) if self._takes_dict else self._module(**given)
        return {name: self._output(name, value) for name, value in self._by_name(result).items()}

    def _value(self, name, given):
        if type(given) is Listed:
            return given.array.tolist()
        if self._device.type != "cpu" and name not in self._on_cpu:
            return given.to(self._device)
        return given

    def _by_name(self, result):
        if isinstance(result, dict):
            return result
        if isinstance(result, tuple) and hasattr(result, "_fields"):
            return dict(zip(result._fields, result))
        if isinstance(result, tuple) and result and all(isinstance(part, dict) for part in result):
            return _merged(result)
        if len(self._outputs) != 1:
            raise TypeError(
                "forward() returned {}; expected the outputs {} in a dict, a NamedTuple or a tuple of dicts: only a model with one output "
                "in its spec may return it as it is".format(_kind(result), self._outputs)
            )
        return {self._outputs[0]: result}

    def _output(self, name, value):
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
            array = np.empty(len(value), object)
            array[:] = value
            return array
        if name in self._texts and isinstance(value, list):
            return text_array(value)
        raise TypeError("output {!r} is {}; expected a tensor or a list of texts".format(name, _kind(value)))


def _merged(parts):
    merged: dict[str, object] = {}
    for part in parts:
        twice = sorted(merged.keys() & part.keys())
        if twice:
            raise ValueError(
                "forward() returned the output {!r} in two dicts of its tuple; return each output once".format(
                    twice[0]
                )
            )
        merged.update(part)
    return merged


def _is_dict(argument):
    return re.match(r"Dict[\[(]str,", str(argument.type)) is not None


def _has_default(argument):
    if hasattr(argument, "has_default_value"):
        return argument.has_default_value()
    return getattr(argument, "default_value", None) is not None


def _kind(value):
    if isinstance(value, (list, tuple)) and value:
        return "a {} of {}".format(type(value).__name__, type(value[0]).__name__)
    return "of type {}".format(type(value).__name__)
