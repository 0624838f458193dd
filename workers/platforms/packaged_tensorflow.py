"""TensorFlow packages: a frozen graph whose nodes ``0/config.json`` names, or a SavedModel with the signature ``serving_default``."""

from __future__ import annotations

import os

import tensorflow

from opexec.workers.platforms import tensorflow as plain
from opexec.workers.platforms.packaged import Wrapped, by_name, text_array, texts_of
from opexec.workers.platforms.packaged_ops import distinct


def load(contents):
    """Load the graph, after the custom ops that it needs.

    Raises ValueError where the package's specs and the graph's names do not fit together.
    """
    for path in distinct(contents.custom_ops):
        tensorflow.load_op_library(path)
    options = contents.known_options()
    names = [spec["name"] for spec in contents.inputs], [spec["name"] for spec in contents.outputs]
    nodes = contents.settings["node_name_mapping"]
    initial = contents.settings["init_op_names"]
    if initial:
        options["init_ops"] = initial
    graph = os.path.join(contents.data, "model.pb")
    if nodes:
        missing = [name for name in names[0] + names[1] if name not in nodes]
        if missing:
            raise ValueError(
                "node_name_mapping in 0/config.json has no node for {!r}; it has {}".format(
                    missing[0], sorted(nodes)
                )
            )
        if names[0]:
            options["inputs"] = {name: nodes[name] for name in names[0]}
        options["outputs"] = {name: nodes[name] for name in names[1]}
    elif os.path.isfile(graph):
        options["inputs"] = {name: name for name in names[0]}
        options["outputs"] = {name: name for name in names[1]}
    else:
        options["signature"] = "serving_default"
    model = plain.load(graph if os.path.isfile(graph) else os.path.join(contents.data, "savedmodel"), options)
    if "signature" in options:
        _check_signature(model, *names)
    return Model(model, contents)


class Model(Wrapped):
    def __init__(self, model, contents):
        super().__init__(model)
        self.optional = model.optional
        self._specs = contents.inputs
        self._names = [spec["name"] for spec in contents.outputs]
        self._texts = texts_of(contents.outputs)

    def bind(self, args, kwargs):
        return self._model.bind([], by_name(self._specs, args, kwargs))

    def run(self, bound, reserve):
        results = self._model.run(bound, reserve)
        return {
            name: text_array(results[name]) if name in self._texts else results[name] for name in self._names
        }


def _check_signature(model, inputs, outputs):
    takes = sorted(spec["name"] for spec in model.inputs)
    if takes != sorted(inputs):
        raise ValueError(
            "the signature serving_default takes {}; the package's input_spec has {}, and both must be the same".format(
                takes, sorted(inputs)
            )
        )
    gives = sorted(model.gives)
    missing = [name for name in outputs if name not in gives]
    if missing:
        raise ValueError(
            "the signature serving_default gives {}; the package's output_spec has {!r} too".format(
                gives, missing[0]
            )
        )
