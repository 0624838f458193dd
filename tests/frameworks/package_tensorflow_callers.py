"""Packagers that are given objects of TensorFlow and Keras. Run by test_package_callers.py, where TensorFlow is installed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import opexec
from opexec import packagers
from opexec.neuropod import packagers as neuropod_packagers
from opexec.package import Package
from opexec.packages.test_data import check_answers, read_test_data

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def spec(name: str, *shape: Any) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": list(shape)}


TRIPLES: dict[str, Any] = {
    "model_name": "triple",
    "input_spec": [spec("x", "n", 2)],
    "output_spec": [spec("y", "n", 2)],
    "test_input_data": {"x": ROWS},
    "test_expected_out": {"y": 3 * ROWS},
}


def check(package: Package, platform: str) -> None:
    inputs, expected = read_test_data(package)
    assert package.platform == platform and expected is not None
    with opexec.load(package.path) as model:
        assert check_answers(model, inputs, expected) == []


def test_a_graph(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        tf.multiply(tf.compat.v1.placeholder(tf.float32, [None, 2], name="in/x"), 3.0, name="out/y")
    package = neuropod_packagers.create_tensorflow_neuropod(
        neuropod_path=tmp_path / "graph",
        graph_def=graph.as_graph_def(),
        node_name_mapping={"x": "in/x:0", "y": "out/y"},
        **TRIPLES,
    )
    check(package, "tensorflow")


def test_what_tensorflow_saves(tmp_path: Path) -> None:
    module = tf.Module()
    module.factor = tf.Variable(3.0)
    module.triple = tf.function(
        lambda x: {"y": x * module.factor}, input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")]
    )
    check(
        packagers.create_tensorflow_package(package_path=tmp_path / "saved", trackable_obj=module, **TRIPLES),
        "tensorflow",
    )


def test_a_keras_model_tells_its_specs(tmp_path: Path) -> None:
    x = keras.Input((2,), name="x")
    model = keras.Model(x, keras.layers.Rescaling(3.0, name="y")(x))
    given = {key: value for key, value in TRIPLES.items() if not key.endswith("_spec")}
    package = packagers.create_keras_package(
        package_path=tmp_path / "net",
        model=model,
        **{**given, "test_expected_out": None},
    )
    assert [one.to_dict() for one in package.inputs] == [spec("x", None, 2)]
    (output,) = package.outputs
    assert output.shape == (None, 2)
    with opexec.load(package.path) as loaded:
        np.testing.assert_array_equal(loaded.infer({"x": ROWS})[output.name], 3 * ROWS)


def test_a_session_is_frozen(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="net_input")
        factor = tf.compat.v1.get_variable("factor", initializer=3.0, use_resource=False)
        y = tf.multiply(x, factor, name="net_output")
        session.run(tf.compat.v1.global_variables_initializer())
        # What Keras 2 says of a model.
        model = SimpleNamespace(inputs=[x], outputs=[y], input_names=["in"], output_names=["out"])
        given = {key: value for key, value in TRIPLES.items() if not key.endswith("_spec")}
        package = neuropod_packagers.create_keras_neuropod(
            neuropod_path=tmp_path / "frozen",
            sess=session,
            model=model,
            node_name_mapping={"x": "in", "y": "out"},
            **given,
        )
    assert [one.to_dict() for one in package.outputs] == [spec("y", None, 2)]
    check(package, "tensorflow")
