"""Files of torch.export (``.pt2``): a model as a graph, together with its weights and the specs of its inputs and outputs."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils import _pytree as pytree

from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import inputs_by_name
from opexec.workers.platforms.torch_tensors import VERSION, Bound, argument
from opexec.workers.structure import flatten


class Exported(Platform):
    """The inputs' names are those of the graph: a parameter's own name, or ``x_0``, ``x_1`` and so on for a parameter that is a list."""

    framework = "torch"
    version = VERSION
    inputs: list

    def __init__(self, source, device):
        try:
            program = torch.export.load(source)
        except Exception as error:  # of zipfile, json, and torch's own schema
            raise RuntimeError(
                "torch {} cannot read {}: {}: {} It should be a file that torch.export.save wrote; if another version did, give "
                "the model an environment that has it: Environment(requirements=['torch==...'])".format(
                    VERSION, source, type(error).__name__, str(error).strip().partition("\n")[0]
                )
            ) from error
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(device))
        self._device = device
        self._module = program.module()
        self._tree = program.call_spec.in_spec
        nodes = {node.name: node for node in program.graph.nodes}
        # What the graph takes, in order: names of tensors, and constants that the model was exported with.
        self._taken = [_user_input(spec) for spec in program.graph_signature.input_specs]
        self._taken = [one for one in self._taken if one is not None]
        self._names = [name for name, _ in self._taken if name is not None]
        self.inputs = [_spec(name, nodes[name].meta["val"]) for name in self._names]
        self.outputs = _output_specs(program, nodes)

    def bind(self, args, kwargs):
        arrays = inputs_by_name(self._names, args, kwargs)
        for spec in self.inputs:
            tensor = argument(spec["name"], arrays[spec["name"]])
            dtype = str(getattr(tensor, "dtype", "text")).replace("torch.", "")
            if dtype != spec["dtype"]:  # the graph would compute with the wrong kind, or fail deep inside
                raise TypeError(
                    "input {!r} is {}; the model was exported for {}".format(
                        spec["name"], dtype, spec["dtype"]
                    )
                )
            arrays[spec["name"]] = tensor
        # As torch.export flattened them: parameters may be lists or dicts of tensors.
        flat = [constant if name is None else arrays[name] for name, constant in self._taken]
        return Bound(flat, {}, self._device)

    def run(self, bound, reserve):
        flat, _ = bound.arguments()
        args, kwargs = pytree.tree_unflatten(list(flat), self._tree)
        with torch.no_grad():
            return self._module(*args, **kwargs)


def _user_input(spec):
    """``(name, None)`` of a tensor that the caller gives, ``(None, value)`` of a constant, None for what the file itself has."""
    if spec.kind.name != "USER_INPUT":
        return None
    if hasattr(spec.arg, "value"):
        return None, spec.arg.value
    return spec.arg.name, None


def _spec(name, tensor):
    return {
        "name": name,
        "dtype": str(tensor.dtype).replace("torch.", ""),
        "shape": [_dimension(size) for size in tensor.shape],
    }


def _dimension(size):
    """A size, the symbol of one that is open, or None where it is computed from others."""
    if isinstance(size, int):
        return size
    text = str(size)
    return text if text.isidentifier() else None


def _output_specs(program, nodes):
    """The outputs' specs, under the names that `workers.structure` gives them; None if one is no tensor."""
    values = []
    for spec in program.graph_signature.output_specs:
        if spec.kind.name == "USER_OUTPUT":
            values.append(
                nodes[spec.arg.name].meta["val"] if type(spec.arg).__name__ == "TensorArgument" else None
            )
    if not all(isinstance(value, torch.Tensor) for value in values):
        return None
    leaves = [np.empty(0) for _ in values]
    try:
        names, _, _ = flatten(pytree.tree_unflatten(leaves, program.call_spec.out_spec))
    except (TypeError, ValueError):  # outputs that cannot travel: the first call says which
        return None
    return [_spec(name, value) for name, value in zip(names, values)]
