"""Models of Keras, written by the version that runs this: Keras 3 on any backend, or Keras 2 in TensorFlow 1 or 2. Python >= 3.7; subject.py says
what the names here mean.
"""

import importlib.util
import os
import sys

import numpy as np

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from subject import BIAS, WEIGHTS, Subject

for backend in ("tensorflow", "jax", "torch"):  # the first that is here, as the platform chooses
    if importlib.util.find_spec(backend):
        os.environ.setdefault("KERAS_BACKEND", backend)
        break
if importlib.util.find_spec("tensorflow"):
    import tensorflow

    keras = tensorflow.keras
    IS_3 = keras.__version__.startswith("3")
else:
    IS_3 = True
if IS_3:
    import keras

BACKEND = keras.backend.backend() if IS_3 else "tensorflow"
IS_GRAPH = not IS_3 and not tensorflow.executing_eagerly()  # TensorFlow 1
NAME = "keras"
if not IS_3:
    sys.modules["keras"] = (
        keras  # where conformance.py looks for the version; here it is a part of TensorFlow alone
    )
L = keras.layers


def session_apart(make):
    """In TensorFlow 1, models of a graph and a session of their own; elsewhere nothing is needed."""
    if not IS_GRAPH:
        return make()
    graph = tensorflow.Graph()
    with graph.as_default(), tensorflow.compat.v1.Session(graph=graph) as session:
        keras.backend.set_session(session)
        return make()


def affine_model():
    x = keras.Input((4,), name="x")
    layer = L.Dense(3, name="y")
    model = keras.Model(x, layer(x))
    layer.set_weights([WEIGHTS, BIAS])
    return model


def sequential_model():
    model = keras.Sequential([keras.Input((4,), name="x"), L.Dropout(0.5), L.Dense(3, name="y")])
    model.layers[-1].set_weights([WEIGHTS, BIAS])
    return model


def save(folder, build, ending):
    """Write a model; returns its path."""
    path = os.path.join(folder, "model" + ending)
    session_apart(lambda: build().save(path))
    return path


def direct(x):
    return session_apart(
        lambda: affine_model().predict(x) if IS_GRAPH else np.asarray(called(affine_model(), x))
    )


def called(model, x):
    """What the model gives, by Keras itself; a numpy array or several."""
    result = model(keras.ops.convert_to_tensor(x) if IS_3 else x, training=False)
    return keras.ops.convert_to_numpy(result) if IS_3 else result.numpy()


SPECS = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": [None, 4]}],
    "outputs": [{"name": "output", "dtype": "float32", "shape": [None, 3]}],
}


def subject(build, ending):
    def make(folder):
        specs = SPECS
        if (
            IS_GRAPH and build is sequential_model
        ):  # Keras 2 names the input after the layer when it reads the file
            specs = dict(SPECS, inputs=[dict(SPECS["inputs"][0], name="dropout_input")])
        name = specs["inputs"][0]["name"]
        return Subject("keras", save(folder, build, ending), direct_or_formula, input=name, **specs)

    return make


def direct_or_formula(x):
    # predict() of TensorFlow 1 has no answer for no rows; the model has.
    return direct(x) if len(x) or not IS_GRAPH else np.zeros((0, 3), np.float32)


SUBJECTS = {"h5": subject(affine_model, ".h5"), "sequential": subject(sequential_model, ".h5")}
if IS_3:
    SUBJECTS["keras"] = subject(affine_model, ".keras")


def echo(folder, dtype):
    def build():
        x = keras.Input((None,), dtype=dtype, name="x")
        return keras.Model(x, _identity(x, dtype))

    return Subject("keras", save(folder, build, ".h5"), None)


def echoes(folder, dtypes):
    def build():
        inputs = [keras.Input((None,), dtype=dtype, name="x_" + dtype) for dtype in dtypes]
        return keras.Model(inputs, [_identity(x, dtype) for x, dtype in zip(inputs, dtypes)])

    names = {dtype: ("x_" + dtype, "output_{}".format(place)) for place, dtype in enumerate(dtypes)}
    return Subject("keras", save(folder, build, ".h5"), None), names


def _identity(x, dtype):
    # Floats of another dtype than a layer's own would be converted.
    own = dtype if "float" in dtype else None
    return (L.Identity(dtype=own) if IS_3 else L.Activation("linear", dtype=dtype))(x)


DTYPES = dict.fromkeys("bool int8 int32 uint8 float16 bfloat16 float32".split(), True)
DTYPES.update(dict.fromkeys("int64 float64".split(), BACKEND != "jax"))  # which has them on request alone


def junk(ending):
    def make(folder):
        path = os.path.join(folder, "junk" + ending)
        with open(path, "wb") as file:
            file.write(b"\xff" * 100)
        return NAME, "keras", path, {}

    return make


BAD = {"h5": junk(".h5"), "keras": junk(".keras")}
