"""Keras packages: the model as Keras saves it, or, with a TensorFlow 1 session, frozen into a graph as Neuropod does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..package import DATA, Package
from ..packages.draft import Draft
from .packing import add_file, create, exactly_one
from .tensorflow import create_tensorflow_package

_Path = str | os.PathLike[str]


def create_keras_package(
    *,
    sess: Any = None,
    model: Any = None,
    model_path: _Path | None = None,
    node_name_mapping: Mapping[str, str] | None = None,
    input_spec: Any = None,
    output_spec: Any = None,
    options: Mapping[str, Any] | None = None,
    **common: Any,
) -> Package:
    """A Keras `model`, or the file of one, `model_path` (``.keras``, ``.h5``), which needs both specs.

    `sess`: the session of TensorFlow 1 that holds the model's weights; the package is then a frozen TensorFlow graph.
    `node_name_mapping`: what Keras calls the tensors of the specs, where the names differ.
    `input_spec`, `output_spec`: by default those of the model, whose first axis is the symbol ``batch_size`` in all of them.
    `options`: of the platform keras, such as ``{"backend": "jax"}``. The others are `packing.create`'s.
    """
    exactly_one(model=model, model_path=model_path)
    names = dict(node_name_mapping or {})
    if model is not None:
        input_spec = input_spec or input_specs(model, names)
        output_spec = output_spec or output_specs(model, names)
    if input_spec is None or output_spec is None:
        raise ValueError("input_spec and output_spec are needed with model_path: only a model tells them")
    common.update(input_spec=input_spec, output_spec=output_spec)
    if sess is not None:
        return _frozen(sess, model, names, common)

    def fill(draft: Draft) -> dict[str, Any]:
        ending = ".keras" if model_path is None else os.path.splitext(os.fspath(model_path))[1]
        file = f"{DATA}/model{ending}"
        if model_path is not None:
            add_file(draft, file, model_path)
        else:
            model.save(str(draft.path(file)))
        settings: dict[str, Any] = {"model": f"model{ending}"}
        if options:
            settings["options"] = dict(options)
        for key, specs in (("inputs", input_spec), ("outputs", output_spec)):
            renamed = {name: names[name] for name in map(_name, specs) if name in names}
            if renamed:
                settings[key] = renamed
        if model is not None and "outputs" not in settings and len(output_spec) > 1:
            settings["outputs"] = dict(zip(map(_name, output_spec), _output_names(model)))
        return settings

    return create("keras", fill, **common)


def input_specs(model: Any, node_name_mapping: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """What a Keras model takes, as `create_keras_package` has it by default."""
    return _specs(model.inputs, _input_names(model), node_name_mapping or {})


def output_specs(model: Any, node_name_mapping: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """What a Keras model gives, as `create_keras_package` has it by default."""
    return _specs(model.outputs, _output_names(model), node_name_mapping or {})


def _frozen(sess: Any, model: Any, names: Mapping[str, str], common: dict[str, Any]) -> Package:
    import tensorflow

    if model is None:
        raise ValueError("sess is the session of a model; give the model itself, not model_path")
    tensors = dict(zip(_input_names(model), model.inputs)) | dict(zip(_output_names(model), model.outputs))
    mapping = {}
    for spec in [*common["input_spec"], *common["output_spec"]]:
        name = _name(spec)
        keras_name = names.get(name, name)
        if keras_name not in tensors:
            raise ValueError(
                f"the model has no tensor {keras_name!r} for {name!r}; it has {', '.join(map(repr, tensors))}"
            )
        mapping[name] = tensors[keras_name].name
    nodes = [mapping[_name(spec)].partition(":")[0] for spec in common["output_spec"]]
    graph = tensorflow.compat.v1.graph_util.convert_variables_to_constants(
        sess, sess.graph.as_graph_def(), nodes
    )
    return create_tensorflow_package(graph_def=graph, node_name_mapping=mapping, **common)


def _input_names(model: Any) -> list[str]:
    return [str(name) for name in getattr(model, "input_names", None) or [one.name for one in model.inputs]]


def _output_names(model: Any) -> list[str]:
    return [str(name) for name in getattr(model, "output_names", None) or [one.name for one in model.outputs]]


def _specs(tensors: Any, keras_names: list[str], names: Mapping[str, str]) -> list[dict[str, Any]]:
    ours = {keras_name: name for name, keras_name in names.items()}
    return [
        {
            "name": ours.get(name, name),
            "dtype": str(getattr(tensor.dtype, "name", tensor.dtype)),
            "shape": (
                "batch_size",
                *(None if size is None else int(size) for size in list(tensor.shape)[1:]),
            ),
        }
        for name, tensor in zip(keras_names, tensors, strict=True)
    ]


def _name(spec: Any) -> str:
    return str(spec["name"] if isinstance(spec, Mapping) else spec.name)
