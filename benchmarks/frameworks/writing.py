"""Writes the models of one framework, in its environment: ``python -I writing.py WRITER FOLDER``. Python >= 3.7.

A writer returns, for each model, what `opexec.load` takes: `platform`, `source` and `options`; `input`, the input's name, and `shape`, its shape. They are
printed into ``models.json`` in the folder.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(HERE)

import model_functions  # type: ignore[import-not-found]  # noqa: E402
from model_functions import FEATURES, INPUT_SHAPE, OUTPUTS, PATCH, weights  # noqa: E402

FILE = os.path.join(HERE, "model_functions.py")


def _model(platform, source, input="x", shape=INPUT_SHAPE, **options):
    return {"platform": platform, "source": source, "options": options, "input": input, "shape": list(shape)}


def python(folder):
    return {name: _model("python", FILE + ":" + name) for name in ("quick", "network")}


def torch(folder):
    return {name: _model("torch", FILE + ":torch_" + name) for name in ("quick", "network")}


def torch_export(folder):
    import torch

    models = {}
    for name in ("quick", "network"):
        module = getattr(model_functions, "torch_" + name)()
        path = os.path.join(folder, name + ".pt2")
        torch.export.save(torch.export.export(module, (torch.zeros(INPUT_SHAPE),)), path)
        models[name] = _model("torch", path)
    return models


def jax(folder):
    return {name: _model("jax", FILE + ":jax_" + name) for name in ("quick", "network")}


def jax_export(folder):
    import jax
    from jax import export

    models = {}
    for name in ("quick", "network"):
        function = jax.jit(getattr(model_functions, "jax_" + name)())
        path = os.path.join(folder, name + ".jaxexport")
        with open(path, "wb") as file:
            file.write(export.export(function)(jax.ShapeDtypeStruct(INPUT_SHAPE, np.float32)).serialize())
        models[name] = _model("jax", path, "input")
    return models


def caffe2(folder):
    from caffe2.python import core  # type: ignore[import-not-found]

    operator = core.CreateOperator

    def given(name, values):
        return operator(
            "GivenTensorFill", [], [name], shape=list(values.shape), values=values.ravel().tolist()
        )

    nets = {
        "quick": (
            [given("one", np.ones(1, np.float32))],
            [
                operator("Flatten", ["x"], ["flat"]),
                operator("Slice", ["flat"], ["some"], starts=[0, 0], ends=[1, OUTPUTS]),
                operator("Scale", ["some"], ["double"], scale=2.0),
                operator("Add", ["double", "one"], ["y"], broadcast=1),
            ],
        ),
        "network": (
            [given("matrix", weights().T), given("bias", np.zeros(OUTPUTS, np.float32))],
            [
                operator("AveragePool", ["x"], ["pooled"], kernel=PATCH, stride=PATCH, order="NCHW"),
                operator("FC", ["pooled", "matrix", "bias"], ["y"]),
            ],
        ),
    }
    models = {}
    for name, (init, predict) in nets.items():
        path = os.path.join(folder, name)
        os.mkdir(path)
        made = [output for one in init for output in one.output]
        _write_net(path, "init_net.pb", init, [], made)
        _write_net(path, "predict_net.pb", predict, ["x"] + made, ["y"])
        models[name] = _model("caffe2", path)
    return models


def _write_net(folder, file, operators, inputs, outputs):
    from caffe2.proto import caffe2_pb2  # type: ignore[import-not-found]

    net = caffe2_pb2.NetDef(name=file, op=operators, external_input=inputs, external_output=outputs)
    with open(os.path.join(folder, file), "wb") as opened:
        opened.write(net.SerializeToString())


def torchscript(folder):
    import torch

    models = {}
    for name in ("quick", "network"):
        module = getattr(model_functions, "torch_" + name)()
        path = os.path.join(folder, name + ".pt")
        torch.jit.trace(module, torch.zeros(INPUT_SHAPE)).save(path)
        # torch 1.4 calls the input of a traced module "input", later ones what forward calls it.
        models[name] = _model("torchscript", path, torch.jit.load(path).forward.schema.arguments[1].name)
    return models


def onnx(folder):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, INPUT_SHAPE)
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, OUTPUTS))
    node = helper.make_node

    def number(name, value, dtype):
        return numpy_helper.from_array(np.array(value, dtype), name)

    graphs = {
        "quick": (
            [
                node("Flatten", ["x"], ["flat"]),
                node("Slice", ["flat", "from", "to", "axis"], ["some"]),
                node("Mul", ["some", "two"], ["double"]),
                node("Add", ["double", "one"], ["y"]),
            ],
            [
                number("from", [0], np.int64),
                number("to", [OUTPUTS], np.int64),
                number("axis", [1], np.int64),
                number("two", 2, np.float32),
                number("one", 1, np.float32),
            ],
        ),
        "network": (
            [
                node("AveragePool", ["x"], ["pooled"], kernel_shape=[PATCH] * 2, strides=[PATCH] * 2),
                node("Flatten", ["pooled"], ["flat"]),
                node("MatMul", ["flat", "matrix"], ["y"]),
            ],
            [numpy_helper.from_array(weights(), "matrix")],
        ),
    }
    models = {}
    for name, (nodes, constants) in graphs.items():
        graph = helper.make_graph(nodes, name, [image], [answer], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
        model.ir_version = 6  # what onnxruntime 1.4 reads
        path = os.path.join(folder, name + ".onnx")
        onnx.save(model, path)
        models[name] = _model("onnx", path)
    return models


def _tensorflow_functions(tf):
    matrix = weights()
    side = 224 // PATCH

    def quick(x):
        return tf.reshape(x, (1, -1))[:, :OUTPUTS] * 2.0 + 1.0

    def network(x):
        patches = tf.reduce_mean(tf.reshape(x, (1, 3, side, PATCH, side, PATCH)), axis=(3, 5))
        return tf.matmul(tf.reshape(patches, (1, FEATURES)), tf.constant(matrix))

    return {"quick": quick, "network": network}


def tensorflow_graph(folder):
    import tensorflow

    tf = tensorflow.compat.v1
    models = {}
    for name, function in _tensorflow_functions(tf).items():
        graph = tf.Graph()
        with graph.as_default():
            tf.identity(function(tf.placeholder(tf.float32, INPUT_SHAPE, "x")), "y")
        path = os.path.join(folder, name + ".pb")
        with open(path, "wb") as file:
            file.write(graph.as_graph_def().SerializeToString())
        models[name] = _model("tensorflow", path, inputs={"x": "x"}, outputs={"y": "y"})
    return models


def tensorflow_saved_model(folder):
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self, function):
            super().__init__()
            self._function = function

        @tf.function(input_signature=[tf.TensorSpec(INPUT_SHAPE, tf.float32, "x")])
        def call(self, x):
            return {"y": self._function(x)}

    models = {}
    for name, function in _tensorflow_functions(tf).items():
        module = Module(function)
        path = os.path.join(folder, name)
        tf.saved_model.save(module, path, signatures=module.call)
        models[name] = _model("tensorflow", path)
    return models


def keras(folder):
    import keras  # type: ignore[import-not-found]

    return _keras(folder, keras, keras.layers.Rescaling, ".keras")


def keras_2(folder):
    from tensorflow import keras

    return _keras(folder, keras, keras.layers.experimental.preprocessing.Rescaling, ".h5")


def _keras(folder, keras, rescaling, ending):
    layers = keras.layers
    row = OUTPUTS
    stacks = {
        "quick": [
            layers.Flatten(),
            layers.Reshape((int(np.prod(INPUT_SHAPE)) // row, row)),
            layers.Cropping1D((0, int(np.prod(INPUT_SHAPE)) // row - 1)),
            layers.Flatten(),
            rescaling(2.0, 1.0),
        ],
        "network": [
            layers.Permute((2, 3, 1)),
            layers.AveragePooling2D(PATCH),
            layers.Flatten(),
            layers.Dense(OUTPUTS, use_bias=False),
        ],
    }
    models = {}
    for name, stack in stacks.items():
        model = keras.Sequential([keras.Input(INPUT_SHAPE[1:], batch_size=1, name="x")] + stack)
        if name == "network":
            model.layers[-1].set_weights([weights()])
        path = os.path.join(folder, name + ending)
        model.save(path)
        models[name] = _model("keras", path)
    return models


def sklearn(folder):
    import joblib  # type: ignore[import-not-found]
    from sklearn.preprocessing import FunctionTransformer  # type: ignore[import-not-found]
    from sklearn.random_projection import SparseRandomProjection  # type: ignore[import-not-found]

    shape = (1, int(np.prod(INPUT_SHAPE)))
    # np.take is the plainest function of numpy's that a pickle of any version can name.
    quick = FunctionTransformer(np.take, kw_args={"indices": np.arange(OUTPUTS), "axis": 1}, validate=False)
    network = SparseRandomProjection(OUTPUTS, random_state=0)
    models = {}
    for name, estimator in (("quick", quick), ("network", network)):
        path = os.path.join(folder, name + ".joblib")
        joblib.dump(estimator.fit(np.zeros(shape, np.float32)), path)
        models[name] = _model("sklearn", path, "X", shape, method="transform")
    return models


#: Trees and their depth; boosters predict a number for each row, so the input is as many rows as make 4 KiB of answers.
_TREES = {"quick": (1, 1), "network": (30, 3)}


def _rows(count):
    """Numbers to fit trees to, and the shape of the input that has `count` rows."""
    columns = int(np.prod(INPUT_SHAPE)) // count
    x = np.random.RandomState(0).uniform(0, 1, (200, columns)).astype(np.float32)
    return x, x[:, :8].sum(axis=1), (count, columns)


def xgboost(folder):
    import xgboost  # type: ignore[import-not-found]

    x, y, shape = _rows(1024)  # answers are float32
    models = {}
    for name, (trees, depth) in _TREES.items():
        path = os.path.join(folder, name + ".ubj")
        xgboost.train({"max_depth": depth, "nthread": 1}, xgboost.DMatrix(x, y), trees).save_model(path)
        models[name] = _model("sklearn", path, "X", shape)
    return models


def lightgbm(folder):
    import lightgbm  # type: ignore[import-not-found]

    x, y, shape = _rows(512)  # answers are float64
    models = {}
    for name, (trees, depth) in _TREES.items():
        path = os.path.join(folder, name + ".txt")
        settings = {"max_depth": depth, "num_leaves": 2**depth, "num_threads": 1, "verbosity": -1}
        lightgbm.train(settings, lightgbm.Dataset(x, y), trees).save_model(path)
        models[name] = _model("sklearn", path, "X", shape)
    return models


def main(writer, folder):
    models = globals()[writer](folder)
    with open(os.path.join(folder, "models.json"), "w") as file:
        json.dump(models, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
