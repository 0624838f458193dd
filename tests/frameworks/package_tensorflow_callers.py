"""Packagers that are given objects of TensorFlow and Keras. Run by test_package_callers.py, where TensorFlow is installed."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import opexec
from opexec import LoadError, packagers
from opexec.neuropod import packagers as neuropod_packagers
from opexec.neuropod.loader import load_neuropod
from tests.frameworks import package_models
from tests.frameworks.package_checks import (
    check_here,
    check_packager,
    check_round_trip,
    check_same_model,
    check_wrong_answer,
)
from tests.frameworks.package_layouts import tensorflow_layouts

pytestmark = pytest.mark.timeout(300)  # each starts workers that import TensorFlow
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


UNTESTED = {name: value for name, value in TRIPLES.items() if not name.startswith("test_")}


def test_a_graph(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        tf.multiply(tf.compat.v1.placeholder(tf.float32, [None, 2], name="in/x"), 3.0, name="out/y")
    given: dict[str, Any] = {
        "graph_def": graph.as_graph_def(),
        "node_name_mapping": {"x": "in/x:0", "y": "out/y"},
        **TRIPLES,
    }
    package = check_packager(packagers.create_tensorflow_package, tmp_path / "a", **given)
    assert package.platform == "tensorflow"
    check_wrong_answer(packagers.create_tensorflow_package, tmp_path, **given)


def test_what_tensorflow_saves(tmp_path: Path) -> None:
    module = tf.Module()
    module.factor = tf.Variable(3.0)
    module.triple = tf.function(
        lambda x: {"y": x * module.factor}, input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")]
    )
    pack = packagers.create_tensorflow_package
    check_here(pack(package_path=tmp_path / "object", trackable_obj=module, **UNTESTED), TRIPLES)
    tf.saved_model.save(module, tmp_path / "saved", signatures=module.triple)
    package = check_packager(pack, tmp_path / "a", saved_model_dir=tmp_path / "saved", **TRIPLES)
    check_round_trip(package, tmp_path, "tensorflow")
    more = {**UNTESTED, "input_spec": [spec("x", "n", 2), spec("z", "n")]}
    unlike = pack(package_path=tmp_path / "unlike", saved_model_dir=tmp_path / "saved", **more)
    with pytest.raises(LoadError, match=r"takes \['x'\].*input_spec has \['x', 'z'\]"):
        opexec.load(unlike.path, isolation="none")
    more = {**TRIPLES, "output_spec": [spec("y", "n", 2), spec("z", "n")]}
    with pytest.raises(LoadError, match=r"gives \['y'\]; the package's output_spec has 'z' too"):
        pack(package_path=tmp_path / "lacking", saved_model_dir=tmp_path / "saved", **more)
    assert not (tmp_path / "lacking").exists()


def test_neuropods_packager_knows_the_signature(tmp_path: Path) -> None:
    class Triples(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
        def triple(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": 3 * x, "more": x}

    pack = neuropod_packagers.create_tensorflow_neuropod
    package = pack(neuropod_path=tmp_path / "right", trackable_obj=Triples(), **TRIPLES)
    check_here(package, TRIPLES)
    tf.saved_model.save(Triples(), tmp_path / "saved")
    taken: list[dict[str, Any]] = [
        {"trackable_obj": Triples()},
        {"saved_model_dir": tmp_path / "saved"},
    ]
    for change in ({"input_spec": []}, {"output_spec": [spec("z", "n", 2)]}):
        for model in taken:
            with pytest.raises(ValueError, match="the signature serving_default of .* has"):
                pack(neuropod_path=tmp_path / "wrong", **{**UNTESTED, **change, **model})
    assert sorted(os.listdir(tmp_path)) == ["right", "saved"]


@pytest.mark.parametrize("resource", [False, True])
def test_a_graph_with_state_begins_anew_in_each_worker(resource: bool, tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [], name="scope/in_x")
        total = tf.compat.v1.get_variable("total", initializer=0.0, use_resource=resource)
        tf.identity(tf.compat.v1.assign_add(total, x), name="scope/out")
        start = tf.compat.v1.global_variables_initializer().name
    for number, init_op_names in enumerate((start, [start])):
        path = tmp_path / str(number)
        neuropod_packagers.create_tensorflow_neuropod(
            neuropod_path=str(path),
            model_name="accumulator",
            graph_def=graph.as_graph_def(),
            node_name_mapping={"x": "scope/in_x:0", "out": "scope/out"},
            init_op_names=init_op_names,
            input_spec=[spec("x")],
            output_spec=[spec("out")],
            test_input_data={"x": np.float32(5)},
            test_expected_out={"out": np.float32(5)},
        )
        with load_neuropod(str(path), visible_gpu=None, isolation="none") as neuropod:
            np.testing.assert_equal(neuropod.infer({"x": np.float32(2)}), {"out": 2.0})
            np.testing.assert_equal(neuropod.infer({"x": np.float32(4)}), {"out": 6.0})


def test_a_keras_model_tells_its_specs(tmp_path: Path) -> None:
    x = keras.Input((2,), name="x")
    model = keras.Model(x, keras.layers.Rescaling(3.0, name="y")(x))
    untold = {key: value for key, value in TRIPLES.items() if not key.endswith("_spec")}
    pack = packagers.create_keras_package
    package = pack(package_path=tmp_path / "net", model=model, **{**untold, "test_expected_out": None})
    assert [one.to_dict() for one in package.inputs] == [spec("x", "batch_size", 2)]
    (output,) = package.outputs
    assert output.shape == ("batch_size", 2)
    named = {
        **TRIPLES,
        "output_spec": [spec(output.name, "n", 2)],
        "test_expected_out": {output.name: 3 * ROWS},
    }
    check_here(package, named)
    model.save(tmp_path / "net.keras")
    check_wrong_answer(pack, tmp_path, model_path=tmp_path / "net.keras", **named)


def test_a_keras_model_and_its_file(tmp_path: Path) -> None:
    x = keras.Input((2,), name="x")
    model = keras.Model(x, keras.layers.Rescaling(3.0, name="y")(x))
    pack = packagers.create_keras_package
    package = check_packager(pack, tmp_path / "a", model=model, **TRIPLES)
    check_round_trip(package, tmp_path, "keras")
    check_same_model(pack, package, "model.keras", **TRIPLES)


def test_layouts(tmp_path: Path) -> None:
    package_models.layouts_tensorflow(tmp_path)
    for layout in tensorflow_layouts(tmp_path):
        with load_neuropod(layout.path, visible_gpu=None, isolation="none") as model:
            layout.check(model)


def test_a_session_is_frozen(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="net_input")
        factor = tf.compat.v1.get_variable("factor", initializer=3.0, use_resource=False)
        y = tf.multiply(x, factor, name="net_output")
        session.run(tf.compat.v1.global_variables_initializer())
        # What Keras 2 says of a model.
        model = SimpleNamespace(inputs=[x], outputs=[y], input_names=["in"], output_names=["out"])
        package = neuropod_packagers.create_keras_neuropod(
            neuropod_path=tmp_path / "frozen",
            sess=session,
            model=model,
            node_name_mapping={"x": "in", "y": "out"},
            model_name="triple",
        )
    assert package.platform == "tensorflow"
    assert [one.to_dict() for one in package.outputs] == [spec("y", "batch_size", 2)]
    check_here(package, TRIPLES)
