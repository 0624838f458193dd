"""Files of torch.export (``.pt2``): a model as a graph, together with its weights and the specs of its inputs and outputs."""

from __future__ import annotations

import torch
from torch.utils import _pytree as pytree

from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import check_dtype, inputs_by_name
from opexec.workers.platforms.exported import output_specs, spec
from opexec.workers.platforms.torch_tensors import VERSION, Bound, argument, unreadable_here
from opexec.workers.platforms.unreadable import first_line, with_kind


class Exported(Platform):
    """The inputs' names are those of the graph: a parameter's own name, or ``x_0``, ``x_1`` and so on for a parameter that is a list."""

    framework = "torch"
    version = VERSION
    inputs: list

    def __init__(self, source, device):
        try:
            program = torch.export.load(source)
        except Exception as error:  # of zipfile, json, and torch's own schema
            advice = "It should be a file that torch.export.save wrote."
            raise unreadable_here(source, with_kind(error, first_line(error)), advice=advice) from error
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
        self.inputs = [spec(name, *_told(nodes[name].meta["val"])) for name in self._names]
        self.outputs = _output_specs(program, nodes)

    def bind(self, args, kwargs):
        arrays = inputs_by_name(self._names, args, kwargs)
        for one in self.inputs:  # the graph would compute with another dtype, or fail deep inside
            check_dtype(one["name"], arrays[one["name"]].dtype, one["dtype"])
        tensors = {name: argument(name, array) for name, array in arrays.items()}
        # As torch.export flattened them: parameters may be lists or dicts of tensors.
        flat = [constant if name is None else tensors[name] for name, constant in self._taken]
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


def _told(tensor):
    return str(tensor.dtype).replace("torch.", ""), tensor.shape


def _output_specs(program, nodes):
    """The outputs' specs; None if one is no tensor."""
    values = []
    for output in program.graph_signature.output_specs:
        if output.kind.name == "USER_OUTPUT":
            values.append(
                nodes[output.arg.name].meta["val"] if type(output.arg).__name__ == "TensorArgument" else None
            )
    if not all(isinstance(value, torch.Tensor) for value in values):
        return None
    return output_specs(
        [_told(value) for value in values],
        lambda leaves: pytree.tree_unflatten(leaves, program.call_spec.out_spec),
    )
