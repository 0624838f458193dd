"""Frozen graphs: a GraphDef in a file, with the weights as constants in it. It says nothing of what goes in and comes out.

Without being told, what goes in are its placeholders, and what comes out is what nothing in the graph takes.
"""

from __future__ import annotations

import difflib

import tensorflow
from google.protobuf.message import DecodeError

from opexec.workers.platforms.tensorflow_session import Model, new_session, tf
from opexec.workers.platforms.unreadable import unreadable

_PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp", "TemporaryVariable")


def load(source, options):
    """Load a file with a GraphDef; tensorflow.py has the options and the errors."""
    definition = tf.GraphDef()
    try:
        with open(source, "rb") as file:
            definition.ParseFromString(file.read())
    except DecodeError as error:
        raise RuntimeError(
            "tensorflow {} cannot load {}: it is no GraphDef ({}). A frozen graph is what graph.as_graph_def() gives after its variables were "
            "made constants, in binary form".format(tensorflow.__version__, source, error)
        ) from error
    if not definition.node:
        raise RuntimeError(
            "tensorflow {} cannot load {}: there is no node in it".format(tensorflow.__version__, source)
        )
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(definition, name="")
    except Exception as error:  # ValueError, KeyError or one of TensorFlow's, from version to version
        reader = "tensorflow {}".format(tensorflow.__version__)
        raise unreadable(reader, source, str(error), "tensorflow==...") from error
    del definition  # the graph has its own
    inputs, outputs = endpoints(graph, options.get("inputs"), options.get("outputs"))
    if not options.get("init_ops"):
        _check_frozen(inputs, outputs, source)
    session = new_session(graph, options)
    initialise(session, options.get("init_ops"))
    model = Model(session, inputs, outputs)
    model.may_be_left_out(_unneeded(inputs, outputs))
    return model


def endpoints(graph, inputs, outputs):
    """``(inputs, outputs)``, both ``{name: tf.Tensor}``, as the options say or as the graph shows.

    Raises ValueError for nodes that it does not have, and where it has nothing that could be meant.
    """
    outputs = _ends(graph) if outputs is None else named(graph, "outputs", outputs)
    inputs = _placeholders(graph, outputs) if inputs is None else named(graph, "inputs", inputs)
    return inputs, outputs


def named(graph, option, given):
    """``{name: tf.Tensor}`` for an option's ``{name: node}``, or list of nodes, which are names then."""
    if isinstance(given, (list, tuple)):
        given = {_plain(node): node for node in given if isinstance(node, str)} if given else given
    wrong = not isinstance(given, dict) or not given
    if wrong or not all(isinstance(one, str) for pair in given.items() for one in pair):
        raise ValueError(
            "the option {} is {!r}; expected {{name: node}} or a list of nodes".format(option, given)
        )
    return {name: _tensor(graph, node) for name, node in given.items()}


def initialise(session, names):
    """Run the operations of these names, one after the other."""
    if names is None:
        return
    if not isinstance(names, (list, tuple)):
        raise ValueError("the option init_ops is {!r}; expected a list of names of operations".format(names))
    for name in names:
        session.run(_operation(session.graph, name))


def _plain(node):
    return node[:-2] if node.endswith(":0") else node


def _tensor(graph, node):
    name, _, index = node.partition(":")
    operation = _operation(graph, name)
    if not (index or "0").isdigit() or int(index or 0) >= len(operation.outputs):
        raise ValueError(
            "the node {!r} has {} outputs; received {!r}".format(name, len(operation.outputs), node)
        )
    return operation.outputs[int(index or 0)]


def _operation(graph, name):
    try:
        return graph.get_operation_by_name(_plain(name))
    except (KeyError, ValueError, TypeError):
        nodes = [operation.name for operation in graph.get_operations()]
        near = difflib.get_close_matches(str(name), nodes, 5, 0.4)
        raise ValueError(
            "the graph has no node {!r}; {}".format(
                name, "near it are {}".format(near) if near else "it has {}".format(_some(nodes))
            )
        ) from None


def _some(names):
    return ", ".join(names[:10]) + (", and {} more".format(len(names) - 10) if len(names) > 10 else "")


def _placeholders(graph, outputs):
    """What has to be fed for `outputs`, in the graph's order."""
    needed = _needed([tensor.op for tensor in outputs.values()])
    return {
        operation.name: operation.outputs[0]
        for operation in graph.get_operations()
        if operation.type in _PLACEHOLDERS and operation in needed
    }


def _unneeded(inputs, outputs):
    """Names of the inputs without which the outputs can be computed: they have values of their own, or nothing takes them."""
    ends = [tensor.op for tensor in outputs.values()]
    return frozenset(
        name
        for name, tensor in inputs.items()
        if tensor.op.type not in _PLACEHOLDERS
        or tensor.op not in _needed(ends, [one for one in inputs.values() if one is not tensor])
    )


def _ends(graph):
    """What nothing in the graph takes and what depends on a placeholder; ``name``, or ``name:1`` for a node's second output."""
    ends: dict = {}
    for operation in graph.get_operations():
        if operation.type in ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "Const"):
            continue
        if any(tensor.consumers() for tensor in operation.outputs):
            continue
        if any(one.type.startswith("Placeholder") for one in _needed([operation])):
            ends.update((_plain(tensor.name), tensor) for tensor in operation.outputs)
    if not ends:
        raise ValueError(
            "no node of the graph depends on a placeholder and is taken by no other; name what comes out by the option outputs: it has {}".format(
                _some([operation.name for operation in graph.get_operations()])
            )
        )
    return ends


def _needed(operations, fed=()):
    """These operations and all that they need to be computed, where the tensors `fed` are given."""
    found, left = set(operations), list(operations)
    fed = {tensor.name for tensor in fed}
    while left:
        operation = left.pop()
        needs = [tensor.op for tensor in operation.inputs if tensor.name not in fed]
        for one in needs + list(operation.control_inputs):
            if one not in found:
                found.add(one)
                left.append(one)
    return found


def _check_frozen(inputs, outputs, source):
    """Variables are refused where the outputs need them; others, as those of a training that was left in the file, do no harm."""
    fed = list(inputs.values())
    given = {tensor.name for tensor in fed}
    wanted = [tensor.op for tensor in outputs.values() if tensor.name not in given]
    variables = [one.name for one in _needed(wanted, fed) if one.type in _VARIABLES]
    if variables:
        raise ValueError(
            "{} is no frozen graph: its outputs need variables that have no values ({}). Freeze it "
            "(tf.compat.v1.graph_util.convert_variables_to_constants), or name the operations that give them values by the option init_ops".format(
                source, _some(sorted(variables))
            )
        )
