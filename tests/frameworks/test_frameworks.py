"""Every platform with the oldest and the newest version of its framework, each in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import opexec
from opexec import Environment
from tests.frameworks.environments import built, resolved

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ONNX models; writing them needs the package onnx, which the environments do not have."""
    folder = tmp_path_factory.mktemp("models")
    code = "import onnx_models, pathlib, sys; onnx_models.write(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, folder], cwd=HERE, check=True)
    return folder


@pytest.fixture(scope="module")
def tensorflow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to which each version of TensorFlow has written, for the others to read."""
    folder = tmp_path_factory.mktemp("tensorflow")
    for name in ("tensorflow-1.15", "tensorflow-2.4", "tensorflow-2.21"):
        subprocess.run([built(name), HERE / "tensorflow_models.py", folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    "cases, environment, at_least",
    [
        ("onnx_cases.py", "onnxruntime-1.4", 50),
        ("onnx_cases.py", "onnxruntime-1.14", 50),
        ("onnx_cases.py", "onnxruntime", 50),
        ("torchscript_cases.py", "torch-1.4", 50),
        ("torchscript_cases.py", "torch-2.13", 50),
        ("torch_cases.py", "torch-1.4", 11),
        ("torch_cases.py", "torch-2.13", 16),
        ("jax_cases.py", "jax", 16),
        ("sklearn_cases.py", "sklearn-0.23", 34),
        ("sklearn_cases.py", "sklearn", 34),
        ("tensorflow_cases.py", "tensorflow-1.15", 30),
        ("tensorflow_cases.py", "tensorflow-2.4", 30),
        ("tensorflow_cases.py", "tensorflow-2.21", 30),
        ("keras_cases.py", "tensorflow-1.15", 40),
        ("keras_cases.py", "tensorflow-2.4", 40),
        ("keras_cases.py", "tensorflow-2.21", 40),
        ("keras_cases.py", "keras-jax", 40),
        ("keras_cases.py", "keras-torch", 40),
        ("caffe2_cases.py", "caffe2", 60),
    ],
)
def test_cases_pass_there(
    cases: str,
    environment: str,
    at_least: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    variables = {**os.environ}
    if cases == "onnx_cases.py":
        variables["OPEXEC_TEST_MODELS"] = str(request.getfixturevalue("models"))
    if cases == "tensorflow_cases.py":
        variables["OPEXEC_TEST_MODELS"] = str(request.getfixturevalue("tensorflow_models"))
    if cases == "keras_cases.py" and environment.startswith("keras-"):
        variables["KERAS_BACKEND"] = environment.partition("-")[2]
    report = tmp_path / "report.xml"
    with capfd.disabled():
        interpreter = built(environment)
        print(f"\n{cases} in {environment}:", flush=True)
        finished = subprocess.run(
            [interpreter, "-I", HERE / "run.py", cases, "--quiet", f"--junit-xml={report}"],
            cwd=tmp_path,
            env=variables,
            stdin=subprocess.DEVNULL,
        )
    assert finished.returncode == 0
    (suite,) = ElementTree.parse(report).iter("testsuite")
    assert int(suite.attrib["tests"]) >= at_least and suite.attrib["skipped"] == "0"


@pytest.mark.parametrize("environment", ["onnxruntime-1.4", "onnxruntime"])
def test_an_onnx_model_answers_in_a_worker_as_in_process_and_nothing_is_copied(
    environment: str, models: Path
) -> None:
    path = models / "add.onnx"
    expected = np.arange(24, dtype=np.float32).reshape(3, 8)
    with opexec.load(path, isolation="none") as here, opexec.load(path, env=built(environment)) as model:
        assert model.inputs == here.inputs and model.outputs == here.outputs
        (worker,) = model.workers
        assert worker.framework == "onnxruntime"
        x, y = model.empty("x", (3, 8)), model.empty("y", (3, 8))
        x[...], y[...] = expected, 1
        for _ in range(3):
            np.testing.assert_array_equal(model.infer({"x": x, "y": y})["z"], here(x, y)["z"])
        before = model.stats()
        z = model.infer({"x": x, "y": y})["z"]
        after = model.stats()
        np.testing.assert_array_equal(z, expected + 1)
        assert (after.bytes_copied_in, after.bytes_copied_out) == (
            before.bytes_copied_in,
            before.bytes_copied_out,
        )


@pytest.mark.parametrize("environment", ["onnxruntime-1.4", "onnxruntime"])
def test_texts_reach_an_onnx_model_and_come_back(environment: str, models: Path) -> None:
    texts = np.array([["one", ""], ["b\u00fc\u4e2d\U0001f600", "x" * 5000]], object)
    with opexec.load(models / "echo_string.onnx", env=built(environment)) as model:
        assert model(texts)["y"].tolist() == texts.tolist()


def test_bfloat16_reaches_an_onnx_model_and_comes_back(models: Path) -> None:
    x = np.array([1, -2.5, 0], ml_dtypes.bfloat16)
    with opexec.load(models / "double_bfloat16.onnx", env=built("onnxruntime")) as model:
        for _ in range(3):
            y = model.infer({"x": x})["y"]
            assert y.dtype == x.dtype
            assert y.astype(np.float32).tolist() == [2, -5, 0]


def saved(environment: str, folder: Path) -> Path:
    """A TorchScript file, written by the torch of an environment."""
    path = folder / "model.pt"
    code = (
        "import sys, torch\n"
        "def f(x, y): return x + y, (x * y, y)\n"
        "x = torch.ones(2, 3)\n"
        "torch.jit.trace(f, (x, x)).save(sys.argv[1])\n"
    )
    subprocess.run([built(environment), "-W", "ignore", "-c", code, path], check=True)
    return path


@pytest.mark.parametrize("environment", ["torch-1.4", "torch-2.13"])
def test_a_torchscript_model_gives_what_it_returned(environment: str, tmp_path: Path) -> None:
    path = saved(environment, tmp_path)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with opexec.load(path, env=built(environment)) as model:
        (worker,) = model.workers
        assert worker.framework == "torch"
        total, (product, same) = model(x, 2 * x)
        np.testing.assert_array_equal(total, 3 * x)
        np.testing.assert_array_equal(product, 2 * x * x)
        np.testing.assert_array_equal(same, 2 * x)
        results: dict[str, Any] = model.infer({"x": x, "y": x})
        assert list(results) == ["output_0", "output_1/0", "output_1/1"]


def test_a_model_for_another_version_says_so(tmp_path: Path) -> None:
    path = saved("torch-2.13", tmp_path)
    with pytest.raises(
        opexec.LoadError, match=r"torch 1\.4\.0 cannot load .*model\.pt.*Environment\("
    ) as caught:
        opexec.load(path, env=built("torch-1.4"))
    assert caught.value.stage == "load"


def test_a_pickle_of_a_newer_scikit_learn_names_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "forest.joblib"
    code = (
        "import joblib, sys; from sklearn.ensemble import RandomForestClassifier as Forest\n"
        "joblib.dump(Forest(2).fit([[0.0], [1.0]], [0, 1]), sys.argv[1], compress=3)"
    )
    subprocess.run([built("sklearn"), "-c", code, path], check=True)
    with pytest.raises(
        opexec.LoadError,
        match=r"scikit-learn 0\.23\.2 \(Python 3\.8\.\d+, numpy 1\..*forest\.joblib \(written by scikit-learn 1\.\d",
    ):
        opexec.load(path, env=built("sklearn-0.23"), platform="sklearn")


def test_an_old_pickle_runs_beside_the_version_that_cannot_read_it(tmp_path: Path) -> None:
    path = tmp_path / "tree.joblib"
    code = (
        "import joblib, sys; from sklearn.tree import DecisionTreeClassifier as Tree\n"
        "joblib.dump(Tree().fit([[0.0], [1.0], [2.0]], [7, 8, 9]), sys.argv[1])"
    )
    subprocess.run([built("sklearn-0.23"), "-c", code, path], check=True)
    with opexec.load(path, env=built("sklearn-0.23"), platform="sklearn") as model:
        assert model(X=np.array([[0.0], [2.0]])).tolist() == [7, 9]
    with pytest.raises(opexec.LoadError, match=r"cannot load .* \(written by scikit-learn 0\.23\.2\): "):
        opexec.load(path, env=built("sklearn"), platform="sklearn")


@pytest.fixture(scope="module")
def several_backends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with Keras 3, TensorFlow and jax: it sees the packages of two."""
    folder = tmp_path_factory.mktemp("several") / "venv"
    names = ("tensorflow-2.21", "keras-jax")
    subprocess.run([built(names[0]), "-m", "venv", "--without-pip", folder], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    places = [
        subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True).stdout
        for python in (folder / "bin" / "python", *map(built, names))
    ]
    Path(places[0].strip(), "several.pth").write_text("".join(places[1:]))
    return folder


BACKEND = """
import keras

class Backend(keras.layers.Layer):
    def call(self, x):
        return x * 0 + ["tensorflow", "jax", "torch"].index(keras.backend.backend())
"""


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What loads a model that answers with the number of the backend it computes with."""
    folder = tmp_path_factory.mktemp("backend")
    (folder / "telling.py").write_text(BACKEND)
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import keras, telling\n"
        "x = keras.Input((2,), name='x')\n"
        "keras.Model(x, telling.Backend()(x)).save(sys.argv[1] + '/model.keras')\n"
    )
    variables = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([built("keras-jax"), "-I", "-c", code, folder], check=True, env=variables)
    objects = {"custom_objects": {"Backend": f"{folder / 'telling.py'}:Backend"}}
    return {"source": folder / "model.keras", "options": objects}


@pytest.mark.parametrize(
    ("option", "variable", "number"),
    [("jax", None, 1), ("jax", "tensorflow", 1), ("tensorflow", "jax", 0), (None, "jax", 1), (None, None, 0)],
)
def test_keras_computes_with_the_backend_that_was_asked_for(
    option: str | None,
    variable: str | None,
    number: int,
    several_backends: Path,
    telling: dict[str, Any],
) -> None:
    options = {**telling["options"], **({"backend": option} if option else {})}
    variables = {"KERAS_BACKEND": variable}
    with opexec.load(telling["source"], options=options, env=several_backends, env_vars=variables) as model:
        assert model(np.ones((1, 2), np.float32)).tolist() == [[number, number]]


def test_a_backend_that_an_environment_lacks_is_named(
    several_backends: Path, telling: dict[str, Any]
) -> None:
    options = {**telling["options"], "backend": "torch"}
    with pytest.raises(
        opexec.LoadError, match=r"Keras 3 was to compute with torch, which .*several.* does not"
    ):
        opexec.load(telling["source"], options=options, env=several_backends)


def test_a_framework_that_an_environment_lacks_is_named(models: Path) -> None:
    with pytest.raises(
        opexec.LoadError, match=r"needs onnxruntime, .*Environment\(requirements=\['onnxruntime'\]\)"
    ):
        opexec.load(models / "add.onnx", env=built("torch-1.4"))


PACKAGE = {
    "pyproject.toml": """
        [build-system]
        requires = ["setuptools"]
        build-backend = "setuptools.build_meta"
        [project]
        name = "opexec-scaling"
        version = "1.0"
        [project.entry-points."opexec.platforms"]
        scaling = "opexec_scaling.platform"
        [tool.setuptools]
        packages = ["opexec_scaling"]
        """,
    "opexec_scaling/__init__.py": "",
    "opexec_scaling/platform.py": """
        import numpy as np
        from opexec.workers.platforms import Platform

        class Model(Platform):
            framework, version = "scaling", "1.0"
            inputs = [{"name": "x", "dtype": "float32", "shape": ["n"]}]
            outputs = [{"name": "y", "dtype": "float32", "shape": ["n"]}]

            def __init__(self, factor):
                self.factor = factor

            def bind(self, args, kwargs):
                return kwargs["x"]

            def run(self, bound, reserve):
                outputs = reserve((("y", bound.dtype, bound.shape),))
                np.multiply(bound, self.factor, out=outputs["y"])
                return outputs

        def load(source, options):
            with open(source) as file:
                return Model(np.float32(file.read()) * np.float32(options.get("times", 1)))
        """,
}


def test_a_platform_that_a_package_registers_is_as_good_as_opexecs_own(tmp_path: Path) -> None:
    for name, text in PACKAGE.items():
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    environment = Environment("3.8", [f"opexec-scaling @ {(tmp_path / 'package').as_uri()}"])
    python = resolved(environment)
    source = tmp_path / "three.scale"
    source.write_text("3")
    x = np.arange(4, dtype=np.float32)
    for platform in ("scaling", "opexec_scaling.platform"):
        with opexec.load(source, platform=platform, options={"times": 2}, env=python) as model:
            assert model.workers[0].framework == "scaling"
            inside = model.empty("x", (4,))
            inside[...] = x
            np.testing.assert_array_equal(model(inside)["y"], 6 * x)
            assert (model.stats().bytes_copied_in, model.stats().bytes_copied_out) == (0, 0)
    with pytest.raises(opexec.LoadError, match=r"'scalign' is not known in .*registered there: scaling\."):
        opexec.load(source, platform="scalign", env=python)
