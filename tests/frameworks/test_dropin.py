"""The drop-in faces before real frameworks of other versions: what a program that is written already does with a loaded model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec.dropin import joblib, keras, torch
from opexec.dropin import tensorflow as tf
from tests.frameworks.callers import run_cases
from tests.frameworks.environments import TORCH, built
from tests.frameworks.subject import BIAS, WEIGHTS, affine, rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Written = Callable[..., Path]

CONSTANTS = f"import numpy as np, sys; w = np.array({WEIGHTS.tolist()}, np.float32); b = np.array({BIAS.tolist()}, np.float32)\n"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Has the interpreter of an environment run code that writes a model at ``sys.argv[1]``; gives that path."""

    def write(environment: str, name: str, code: str, **variables: str) -> Path:
        path = tmp_path / name
        finished = subprocess.run(
            [built(environment), "-I", "-W", "ignore", "-c", CONSTANTS + code, path],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert finished.returncode == 0, finished.stdout
        return path

    return write


# ---- torch


@pytest.mark.parametrize("environment", ["torch-1.4", "torch-2.13"])
def test_torchscript_of_any_version(environment: str, written: Written) -> None:
    code = (
        "import torch; w, b = torch.from_numpy(w), torch.from_numpy(b)\n"
        "torch.jit.trace(lambda x: (x @ w + b, x), torch.zeros(1, 4)).save(sys.argv[1])\n"
    )
    path = written(environment, "model.pt", code)
    with torch.jit.load(path, map_location="cpu", env=built(environment)) as module:
        y, x = module.eval()(rows(3))
        np.testing.assert_array_equal(y, affine(rows(3)), strict=True)
        np.testing.assert_array_equal(x, rows(3), strict=True)
        with pytest.raises(AttributeError, match=r"no 'state_dict'; it has .*forward.*opexec_model"):
            module.state_dict()
        assert module.opexec_model.workers[0].framework_version.startswith(environment.split("-")[1])


def test_without_torch_the_face_says_what_it_has() -> None:
    with pytest.raises(AttributeError, match=r"jit\.load.*'torch', which cannot be imported.*'no_grad'"):
        torch.no_grad  # noqa: B018
    assert not hasattr(torch, "nn") and not hasattr(torch.jit, "script")


def test_torch_tensors_go_in_and_come_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        run_cases("dropin_torch_callers.py", sys.executable, TORCH, tmp_path / "report.xml")


# ---- TensorFlow and Keras

SAVED = """
import tensorflow as tf
tf.compat.v1.enable_v2_behavior()  # what TensorFlow 1 lacks otherwise
class Module(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, "x")])
    def affine(self, x): return {"y": x @ w + b}
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, "x"), tf.TensorSpec((), tf.float32, "k")])
    def scaled(self, x, k): return {"y": x * k, "rows": tf.shape(x)[0]}
module = Module()
tf.saved_model.save(module, sys.argv[1], signatures={"serving_default": module.affine, "scaled": module.scaled})
"""


#: As programs for TensorFlow 1 write it: a session's variables, two signatures, the tag in the way of its time.
SAVED_BY_SESSION = """
import tensorflow as tf
x = tf.placeholder(tf.float32, (None, 4), "x")
k = tf.placeholder(tf.float32, (), "k")
weights = tf.Variable(w)
def signature(inputs, outputs):
    return tf.saved_model.predict_signature_def(inputs, outputs)
builder = tf.saved_model.Builder(sys.argv[1])
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], {
        tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: signature({"x": x}, {"y": tf.matmul(x, weights) + b}),
        "scaled": signature({"x": x, "k": k}, {"y": x * k, "rows": tf.shape(x)[0]}),
    })
builder.save()
"""


def test_a_saved_model_of_tensorflow_1_called_as_tensorflow_2_would(written: Written) -> None:
    path = written("tensorflow-1.15", "saved", SAVED_BY_SESSION)
    with tf.saved_model.load(path, tags=[tf.saved_model.SERVING], env=built("tensorflow-1.15")) as loaded:
        worker = loaded.opexec_model.workers[0]
        assert (worker.framework_version, worker.python[:4]) == ("1.15.5", "3.7.")
        infer = loaded.signatures[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
        for answer in (infer(x=rows(3))["y"], infer(rows(3))["y"], loaded(rows(3))):
            np.testing.assert_array_equal(answer.numpy(), affine(rows(3)), strict=True)
        y = loaded.signatures["scaled"](x=rows(2), k=np.array(3, np.float32))
        np.testing.assert_array_equal(y["y"], 3 * rows(2))
        assert y["rows"].numpy() == 2
    with pytest.raises(opexec.LoadError, match=r"none is tagged \['train'\]"):
        tf.saved_model.load(path, tags="train", env=built("tensorflow-1.15"))


@pytest.mark.parametrize("environment", ["tensorflow-1.15", "tensorflow-2.4", "tensorflow-2.21"])
def test_a_saved_model(environment: str, written: Written) -> None:
    path = written(environment, "saved", SAVED)
    with tf.saved_model.load(path, env=built(environment)) as loaded:
        assert list(loaded.signatures) == ["scaled", "serving_default"]
        infer = loaded.signatures["serving_default"]
        for answer in (
            infer(x=rows(3))["y"],
            infer(rows(3))["y"],
            loaded(rows(3)),
            loaded(x=rows(3), training=False),
        ):
            np.testing.assert_array_equal(answer.numpy(), affine(rows(3)), strict=True)
        assert infer is loaded.signatures["serving_default"]

        y = loaded.signatures["scaled"](x=rows(2), k=np.array(3, np.float32))
        np.testing.assert_array_equal(y["y"], 3 * rows(2))
        assert y["rows"].numpy() == 2

        part = infer(x=rows(3))["y"][1:].numpy()
        for round in range(50):
            infer(x=rows(3) + np.float32(round))
        np.testing.assert_array_equal(part, affine(rows(3))[1:])

        with pytest.raises(KeyError, match="other"):
            loaded.signatures["other"]
        with pytest.raises(ValueError, match="training=True"):
            loaded(rows(1), training=True)
        with pytest.raises(opexec.SpecError, match="'z' is unknown"):
            infer(z=rows(1))
        with pytest.raises(opexec.SpecError, match="by name: .*'k'.*'x'"):
            loaded.signatures["scaled"](rows(1), np.array(3, np.float32))
        with pytest.raises(AttributeError, match=r"no 'variables'; it has .*signatures"):
            loaded.variables  # noqa: B018
        workers = [loaded.signatures[name].opexec_model.workers[0] for name in loaded.signatures]
        assert len({worker.pid for worker in workers}) == 2
    assert {signature.opexec_model.workers[0].state for signature in loaded.signatures.values()} == {
        "stopped"
    }


def test_what_is_no_saved_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(opexec.LoadError, match=r"SavedModel.*saved_model\.pb") as caught:
        tf.saved_model.load(tmp_path)
    assert caught.value.stage == "source"
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 20)
    with pytest.raises(opexec.LoadError, match="protocol buffer"):
        tf.saved_model.load(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(opexec.LoadError):
        tf.saved_model.load(tmp_path)


def test_tensorflow_tensors_go_in_and_come_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        run_cases("dropin_tensorflow_callers.py", "3.12", "tensorflow-cpu==2.21.0", tmp_path / "report.xml")


KERAS = """
{imports}
layer = keras.layers.Dense(3)
one = keras.Sequential([keras.layers.Input((4,), name="x"), layer])
layer.set_weights([w, b])
one.save(sys.argv[1])
x, k = keras.layers.Input((4,), name="x"), keras.layers.Input((4,), name="k")
two = keras.Model([x, k], [keras.layers.Add(name="total")([x, k]), keras.layers.Multiply(name="product")([x, k])])
two.save(sys.argv[1].replace("one", "two"))
"""


@pytest.mark.parametrize(
    "environment, ending, imports, variables",
    [
        ("tensorflow-1.15", ".h5", "from tensorflow import keras", {}),
        ("tensorflow-2.4", ".h5", "from tensorflow import keras", {}),
        ("tensorflow-2.21", ".keras", "import keras", {"KERAS_BACKEND": "tensorflow"}),
    ],
)
@pytest.mark.parametrize("load", [keras.models.load_model, tf.keras.models.load_model])
def test_a_keras_model(
    load: Any, environment: str, ending: str, imports: str, variables: dict[str, str], written: Written
) -> None:
    path = written(environment, "one" + ending, KERAS.format(imports=imports), **variables)
    with load(path, compile=False, env=built(environment)) as model:
        assert model.input_shape == (None, 4) and model.output_shape == (None, 3)
        np.testing.assert_allclose(model(rows(3), training=False).numpy(), affine(rows(3)), rtol=1e-6)
        for batch_size in (None, 1, 7, 100):
            y = model.predict(rows(50), batch_size=batch_size, verbose=0)
            assert type(y) is np.ndarray
            np.testing.assert_allclose(y, affine(rows(50)), rtol=1e-6)
        np.testing.assert_allclose(model.predict_on_batch(rows(2)), affine(rows(2)), rtol=1e-6)
        for given in (
            rows(3).astype(np.float64),
            rows(3).astype(np.int32),
            rows(3).tolist(),
        ):  # as Keras takes them
            np.testing.assert_allclose(model.predict(given, verbose=0), affine(rows(3)), rtol=1e-6)
        assert model.opexec_model.platform == "keras"
        with pytest.raises(ValueError, match="training=True"):
            model(rows(1), training=True)
        with pytest.raises(AttributeError, match=r"no 'fit'; it has .*predict"):
            model.fit(rows(1), rows(1))
    with load(str(path).replace("one", "two"), env=built(environment)) as model:
        assert model.input_names == ["x", "k"] and model.input_shape == [(None, 4), (None, 4)]
        x, k = rows(40), rows(40) + 1
        for given in ([x, k], {"x": x, "k": k}):
            total, product = model.predict(given)
            np.testing.assert_array_equal(total, x + k)
            np.testing.assert_array_equal(product, x * k)
        total, product = model([x[:2], k[:2]])
        np.testing.assert_array_equal(total.numpy(), (x + k)[:2])
        with pytest.raises(opexec.SpecError, match="expected 2 inputs"):
            model.predict(x)
        with pytest.raises(opexec.SpecError, match="rows"):
            model.predict([x, k[:3]])


SAVED_KERAS = (
    KERAS.format(imports="from tensorflow import keras")
    + """
class Own(keras.Model):
    def call(self, x): return x + 1
own = Own()
own.predict(np.ones((1, 4), np.float32))
own.save(sys.argv[1].replace("one", "own"))
import tensorflow
plain = tensorflow.Module()
plain.f = tensorflow.function(lambda x: x, [tensorflow.TensorSpec((None, 4), tensorflow.float32, "x")])
tensorflow.saved_model.save(plain, sys.argv[1].replace("one", "plain"), plain.f)
"""
)


@pytest.mark.parametrize("load", [keras.models.load_model, tf.keras.models.load_model])
def test_a_keras_model_in_a_saved_model_folder(load: Any, written: Written) -> None:
    env = built("tensorflow-2.4")
    path = written("tensorflow-2.4", "one", SAVED_KERAS)
    with load(path, env=env) as model:
        assert model.input_shape == (None, 4) and model.output_shape == (None, 3)
        np.testing.assert_allclose(model(rows(3)).numpy(), affine(rows(3)), rtol=1e-6)
        np.testing.assert_allclose(model.predict(rows(50)), affine(rows(50)), rtol=1e-6)
    with load(path.with_name("two"), env=env) as model:
        # Two of the same shape: in the model's own order, not in that of their names.
        assert model.input_names == ["x", "k"]
        x, k = rows(40), rows(40) + 1
        total, product = model.predict([x, k])
        np.testing.assert_array_equal(total, x + k)
        np.testing.assert_array_equal(product, x * k)
    specs = {"inputs": [opexec.TensorSpec("x", "float32", (None, 4))]}
    with load(path.with_name("own"), env=env, **specs) as model:  # a class that the worker does not have
        np.testing.assert_array_equal(model.predict(rows(3)), rows(3) + 1)
    with pytest.raises(opexec.LoadError, match="holds no Keras model; the tensorflow platform"):
        load(path.with_name("plain"), env=env)
    with pytest.raises(opexec.LoadError, match="SavedModel folders are Keras 2's.*tensorflow<2.16"):
        load(path, env=built("tensorflow-2.21"))


# ---- scikit-learn

ESTIMATORS = """
import json, joblib
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.decomposition import PCA
x = np.random.RandomState(0).normal(size=(60, 4)); y = (x[:, 0] + x[:, 1] > 0).astype(int)
answers = {}
for name, estimator in (("classifier", LogisticRegression().fit(x, y)), ("scaler", StandardScaler().fit(x)), ("pca", PCA(2).fit(x))):
    joblib.dump(estimator, sys.argv[1] + name, compress=3 if name == "pca" else 0)
    methods = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples")
    answers[name] = {one: getattr(estimator, one)(x[:5]).tolist() for one in methods if hasattr(estimator, one)}
json.dump({"x": x[:5].tolist(), "answers": answers}, open(sys.argv[1] + "json", "w"))
"""


@pytest.fixture(params=["sklearn-0.23", "sklearn"])
def estimators(request: pytest.FixtureRequest, written: Written) -> Iterator[tuple[str, Path, Any]]:
    path = written(request.param, "estimator.", ESTIMATORS)
    yield request.param, path, json.loads(Path(f"{path}json").read_text())


def test_an_estimator_has_its_methods_and_no_others(estimators: Any) -> None:
    environment, path, about = estimators
    for name, answers in about["answers"].items():
        with joblib.load(f"{path}{name}", env=built(environment)) as estimator:
            for method in joblib.METHODS:
                assert hasattr(estimator, method) == (method in answers), (name, method)
                if method in answers:
                    for x in (np.array(about["x"]), about["x"]):
                        got = getattr(estimator, method)(x)
                        np.testing.assert_allclose(got, answers[method], rtol=1e-9)
            assert estimator.opexec_model.workers[0].framework == "scikit-learn"
            with pytest.raises(AttributeError, match=rf"no 'fit'; it has .*{next(iter(answers))}"):
                estimator.fit(about["x"])


def test_an_estimator_from_an_open_file(estimators: Any) -> None:
    environment, path, about = estimators
    with open(f"{path}classifier", "rb") as file, joblib.load(file, env=built(environment)) as estimator:
        np.testing.assert_array_equal(
            estimator.predict(about["x"]), about["answers"]["classifier"]["predict"]
        )
        with pytest.raises(opexec.ModelError, match="features"):
            estimator.predict(np.ones((2, 9)))
        assert estimator.predict(X=np.array(about["x"])).dtype.kind == "i"


@pytest.mark.parametrize(
    "python, needs",
    [("3.11", ["pandas>=3", "scipy"]), ("3.10", ["pandas<2", "numpy<2", "scipy"])],
    ids=["3", "1"],
)
def test_tables_and_sparse_matrices_go_in(
    python: str, needs: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled():
        run_cases("dropin_joblib_callers.py", python, needs, tmp_path / "report.xml")
