"""Models of TensorFlow, written by the version that runs this: 1.15 or a 2. Python >= 3.7; subject.py says what the names here mean.

Executed, it writes what the cases of other versions read: ``python tensorflow_models.py FOLDER`` makes saved_model, graph.pb and
multiplying.pb in FOLDER/<version>.
"""

import os
import sys

import tensorflow

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from subject import BIAS, WEIGHTS, Subject

tf = tensorflow.compat.v1
VERSION = tensorflow.__version__
IS_2 = int(VERSION.split(".")[0]) >= 2


def frozen(path, build):
    """Write the graph that `build()` makes."""
    graph = tf.Graph()
    with graph.as_default():
        build()
    with open(path, "wb") as file:
        file.write(graph.as_graph_def().SerializeToString())
    return path


def saved_by_session(folder, build, **signatures):
    """A SavedModel of TensorFlow 1. `build()` makes the graph; a signature is ``((inputs), (outputs))``, both {name: tensor's name}."""
    builder = tf.saved_model.Builder(folder)
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        build()
        session.run([tf.global_variables_initializer(), tf.tables_initializer()])
        definitions = {}
        for key, (inputs, outputs) in signatures.items():
            definitions[key] = tf.saved_model.predict_signature_def(
                *[
                    {name: graph.get_tensor_by_name(one) for name, one in side.items()}
                    for side in (inputs, outputs)
                ]
            )
        builder.add_meta_graph_and_variables(
            session, ["serve"], definitions, main_op=tf.tables_initializer(), clear_devices=True
        )
    builder.save()
    return folder


def affine_graph():
    x = tf.placeholder(tf.float32, [None, 4], name="x")
    tf.add(tf.matmul(x, tf.constant(WEIGHTS)), tf.constant(BIAS), name="y")


def multiplying_graph():
    x = y = tf.placeholder(tf.float32, [None, None], name="x")
    for _ in range(5):
        y = tf.matmul(y, x)


def affine_with_variables():
    x = tf.placeholder(tf.float32, [None, 4], name="x")
    weights = tf.get_variable("weights", initializer=tf.constant(WEIGHTS), use_resource=IS_2)
    bias = tf.get_variable("bias", initializer=tf.constant(BIAS), use_resource=IS_2)
    tf.add(tf.matmul(x, weights), bias, name="y")


def affine_module():
    """The same as a module of TensorFlow 2, with two signatures."""

    class Affine(tensorflow.Module):
        def __init__(self):
            super().__init__()
            self.weights = tensorflow.Variable(WEIGHTS)
            self.bias = tensorflow.Variable(BIAS)

        @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, 4], tensorflow.float32, "x")])
        def affine(self, x):
            return {"y": tensorflow.matmul(x, self.weights) + self.bias}

        @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, 4], tensorflow.float32, "x")])
        def negated(self, x):
            return {"z": -self.affine(x)["y"]}

    return Affine()


def save_affine(folder):
    """A SavedModel as this version writes it."""
    if not IS_2:
        return saved_by_session(
            folder,
            affine_with_variables,
            serving_default=({"x": "x:0"}, {"y": "y:0"}),
            negated=({"x": "x:0"}, {"z": "y:0"}),
        )
    module = affine_module()
    signatures = {"serving_default": module.affine, "negated": module.negated}
    tensorflow.saved_model.save(module, folder, signatures=signatures)
    return folder


# ---- the conformance suite


NAME = "tensorflow"
SPECS = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": [None, 4]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": [None, 3]}],
}


def direct(x):
    """The model, by TensorFlow itself."""
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as session:
        affine_graph()
        return session.run("y:0", {"x:0": x})


def graph(folder):
    path = frozen(os.path.join(folder, "graph.pb"), affine_graph)
    return Subject("tensorflow", path, direct, output="y", **SPECS)


def saved_model(folder):
    path = save_affine(os.path.join(folder, "saved_model"))
    return Subject("tensorflow", path, direct, output="y", **SPECS)


def old_saved_model(folder):
    path = os.path.join(folder, "old")
    saved_by_session(path, affine_with_variables, serving_default=({"x": "x:0"}, {"y": "y:0"}))
    return Subject("tensorflow", path, direct, output="y", **SPECS)


SUBJECTS = {"graph": graph, "saved_model": saved_model, "old_saved_model": old_saved_model}


def echo_graph(dtype):
    # Identity alone would be optimised away, so that what is fetched were what was fed.
    def build():
        x = tf.placeholder(dtype, [None, None], name="x")
        tf.concat([x[:1], x[1:]], 0, name="y") if dtype not in _FLOAT8 else tf.identity(x, name="y")

    return build


_FLOAT8 = ("float8_e5m2", "float8_e4m3fn")
DTYPES = dict.fromkeys(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64 complex64 complex128".split(),
    True,
)
if IS_2 and int(VERSION.split(".")[1]) >= 16:
    DTYPES.update(dict.fromkeys(_FLOAT8, True))


def echo(folder, dtype):
    path = frozen(os.path.join(folder, "echo.pb"), echo_graph(dtype))
    return Subject("tensorflow", path, None, output="y")


def echoes(folder, dtypes):
    def build():
        for dtype in dtypes:
            x = tf.placeholder(dtype, [None, None], name="x_" + dtype)
            tf.concat([x[:1], x[1:]], 0, name="y_" + dtype)

    path = frozen(os.path.join(folder, "echoes.pb"), build)
    return Subject("tensorflow", path, None), {dtype: ("x_" + dtype, "y_" + dtype) for dtype in dtypes}


TEXTS = "bytes"


def junk(folder):
    path = os.path.join(folder, "junk.pb")
    with open(path, "wb") as file:
        file.write(b"\xff" * 100)
    return NAME, "tensorflow", path, {}


def damaged(folder):
    path = os.path.join(folder, "damaged")
    os.makedirs(path)
    with open(os.path.join(path, "saved_model.pb"), "wb") as file:
        file.write(b"\xff" * 100)
    return NAME, "tensorflow", path, {}


BAD = {"junk": junk, "damaged": damaged}


if __name__ == "__main__":
    place = os.path.join(sys.argv[1], VERSION)
    os.makedirs(place)
    frozen(os.path.join(place, "graph.pb"), affine_graph)
    frozen(os.path.join(place, "multiplying.pb"), multiplying_graph)
    save_affine(os.path.join(place, "saved_model"))
