"""Packages of every platform, and packagers' round trips, each in the package's own environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Environment, LoadError, packagers
from opexec.neuropod.loader import load_neuropod
from opexec.package import read
from opexec.packages.draft import repack
from opexec.packages.test_data import check_answers, read_test_data
from tests.frameworks.environments import ENVIRONMENTS, built
from tests.frameworks.package_checks import check_round_trip

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "data" / "packages"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

X = np.arange(4, dtype=np.float32)


def spec(name: str, *shape: Any, dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


ADDS: dict[str, Any] = {
    "model_name": "adder",
    "input_spec": [spec("x", "n"), spec("y", "n")],
    "output_spec": [spec("out", "n")],
    "test_input_data": {"x": X, "y": X},
    "test_expected_out": {"out": 2 * X},
}


def written(kind: str, environment: str, folder: Path) -> Path:
    """The folder, with the models of package_models.py in it."""
    python = built(environment)
    subprocess.run(
        [python, "-W", "ignore", HERE / "package_models.py", kind, folder], check=True, capture_output=True
    )
    return folder


def own(environment: str) -> Environment:
    built(environment)
    return ENVIRONMENTS[environment]


# ---- Neuropod's published packages


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("environment", ["tensorflow-1.15", "tensorflow-2.4", "tensorflow-2.21"])
def test_the_published_tensorflow_package(environment: str, as_zip: bool, tmp_path: Path) -> None:
    path = PUBLISHED / "tf_addition_model"
    if as_zip:
        path = repack(read(path), tmp_path / "zipped", manifest=False).path
    with opexec.load(path, env=built(environment)) as model:
        assert (model.name, model.platform, model.workers[0].framework) == (
            "addition_model",
            "tensorflow",
            "tensorflow",
        )
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        np.testing.assert_array_equal(model.infer({"x": x, "y": x})["out"], 2 * x)


# torch 2.13 reads TorchScript of this age no more.
@pytest.mark.parametrize("environment", ["torch-1.4", "torch-1.5"])
def test_the_published_torchscript_packages(environment: str) -> None:
    python = built(environment)
    package = read(PUBLISHED / "torchscript_addition_model_single_output")
    inputs, expected = read_test_data(package, python)
    assert expected is not None and sorted(inputs) == ["x", "y"]
    with opexec.load(
        package.path, env=python, check=False
    ) as model:  # its test data has not the rank of its spec
        assert check_answers(model, inputs, expected) == []
    with opexec.load(package.path, env=python) as model:
        inputs = {name: array[None] for name, array in inputs.items()}
        np.testing.assert_array_equal(model.infer(inputs)["out"], expected["out"][None])
        with pytest.raises(opexec.SpecError, match="axis 0"):
            model.infer({**inputs, "y": np.repeat(inputs["y"], 2, axis=0)})
        with pytest.raises(opexec.ModelError, match="no argument 'optional'"):
            model.infer({**inputs, "optional": ["a"] * len(inputs["x"])})
    with load_neuropod(PUBLISHED / "torchscript_strings_model", visible_gpu=None, env=python) as neuropod:
        out = neuropod.infer({"x": np.array(["A", "b\u00fc"]), "y": np.array(["sample", "2"])})["out"]
        assert out.dtype.kind == "U" and out.tolist() == ["A sample", "b\u00fc 2"]


def test_the_range_is_held_against_what_is_there(tmp_path: Path) -> None:
    mapping = {"x": "some_namespace/in_x", "y": "some_namespace/in_y:0", "out": "some_namespace/out"}
    shape = [None, None]
    package = packagers.create_tensorflow_package(
        package_path=tmp_path / "old.zip",
        model_name="old",
        frozen_graph_path=PUBLISHED / "tf_addition_model/0/data/model.pb",
        node_name_mapping=mapping,
        input_spec=[spec("x", *shape), spec("y", *shape)],
        output_spec=[spec("out", *shape)],
        platform_version_semver="1.13.1 - 2.5.0",
        environment=own("tensorflow-1.15"),
        test_input_data={"x": X[None], "y": X[None]},
        test_expected_out={"out": 2 * X[None]},
    )
    check_round_trip(package, tmp_path, "tensorflow")
    with opexec.load(package.path, env=built("tensorflow-2.4")) as model:  # its own comes first
        assert model.workers[0].framework_version == "1.15.5"
    bare = packagers.create_tensorflow_package(
        package_path=tmp_path / "bare",
        package_as_zip=False,
        model_name="bare",
        frozen_graph_path=PUBLISHED / "tf_addition_model/0/data/model.pb",
        node_name_mapping=mapping,
        input_spec=[spec("x", *shape), spec("y", *shape)],
        output_spec=[spec("out", *shape)],
        platform_version_semver="1.13.1 - 2.5.0",
    )
    with opexec.load(bare.path, env=built("tensorflow-2.4")) as model:
        assert model.workers[0].framework_version == "2.4.4"
    with pytest.raises(
        LoadError, match=r"'99\.0\.0'.*the given environment has 2\.21\.0.*caller's interpreter"
    ):
        config = bare.path / "config.json"
        config.write_text(config.read_text().replace("1.13.1 - 2.5.0", "99.0.0"))
        (bare.path / "manifest.json").unlink()
        opexec.load(bare.path, env=built("tensorflow-2.21"))


# ---- round trips


def test_saved_models(tmp_path: Path) -> None:
    folder = written("saved_model", "tensorflow-2.21", tmp_path) / "saved"
    given = {**ADDS, "output_spec": [spec("sum", "n")], "test_expected_out": {"sum": 2 * X}}
    package = packagers.create_tensorflow_package(
        package_path=tmp_path / "saved.zip",
        saved_model_dir=folder,
        environment=own("tensorflow-2.21"),
        **given,
    )
    check_round_trip(package, tmp_path, "tensorflow")
    with pytest.raises(LoadError, match=r"takes \['x', 'y'\].*input_spec has \['x'\]"):
        packagers.create_tensorflow_package(
            package_path=tmp_path / "refused.zip",
            saved_model_dir=folder,
            environment=own("tensorflow-2.21"),
            **{**given, "input_spec": [spec("x", "n")], "test_input_data": {"x": X}},
        )
    assert not (tmp_path / "refused.zip").exists()


def test_every_way_to_call_torchscript(tmp_path: Path) -> None:
    folder = written("torchscript", "torch-2.13", tmp_path)
    texts = {"x": np.array(["a", "b"]), "y": np.array(["1", "2"])}
    square = X.reshape(2, 2)
    cases: dict[str, dict[str, Any]] = {
        "tensors": {
            "input_spec": [spec("x", "n", "m"), spec("y", "n", "m")],
            "output_spec": [spec("out", "m", "n")],
            "test_input_data": {"x": square, "y": square},
            "test_expected_out": {"out": 2 * square.T},
        },
        "texts": {
            "input_spec": [spec("x", "n", dtype="string"), spec("y", "n", dtype="string")],
            "output_spec": [spec("out", "n", dtype="string")],
            "test_input_data": texts,
            "test_expected_out": {"out": np.array(["a1", "b2"])},
        },
        "either": {
            "input_spec": [spec("x", "n"), spec("s", "k", dtype="string")],
            "output_spec": [spec("y", "n"), spec("t", "k", dtype="string")],
            "test_input_data": {"x": X, "s": np.array(["a", ""])},
            "test_expected_out": {"y": 2 * X, "t": np.array(["a!", "!"])},
        },
        "default": {
            "input_spec": [spec("x", "n"), spec("times", dtype="int64")],
            "output_spec": [spec("out", "n")],
            "test_input_data": {"x": X},
            "test_expected_out": {"out": 3 * X},
        },
    }
    for name, case in cases.items():
        package = packagers.create_torchscript_package(
            package_path=tmp_path / f"{name}.zip",
            model_name=name,
            module_path=folder / f"{name}.pt",
            environment=own("torch-2.13"),
            **case,
        )
        (tmp_path / name).mkdir()
        check_round_trip(package, tmp_path / name, "torch")
    with pytest.raises(ValueError, match="output 'out'"):
        packagers.create_torchscript_package(
            package_path=tmp_path / "wrong.zip",
            model_name="wrong",
            module_path=folder / "default.pt",
            environment=own("torch-2.13"),
            **{**cases["default"], "test_expected_out": {"out": X + 1}},
        )
    assert not (tmp_path / "wrong.zip").exists()


def test_torch(tmp_path: Path) -> None:
    folder = written("torch", "torch-2.13", tmp_path)
    package = packagers.create_torch_package(
        package_path=tmp_path / "add.zip",
        model_path=folder / "add.pt2",
        environment=own("torch-2.13"),
        **ADDS,
    )
    check_round_trip(package, tmp_path, "torch")
    code = tmp_path / "code/net"
    code.mkdir(parents=True)
    (code / "main.py").write_text("def make(data_path):\n    return lambda x, y: {'out': x.add(y)}\n")
    made = packagers.create_torch_package(
        package_path=tmp_path / "made.zip",
        code_path_spec=[{"python_root": tmp_path / "code", "dirs_to_package": ["net"]}],
        entrypoint_package="net.main",
        entrypoint="make",
        environment=own("torch-1.4"),
        **ADDS,
    )
    (tmp_path / "made").mkdir()
    check_round_trip(made, tmp_path / "made", "torch")


def test_onnx(tmp_path: Path) -> None:
    code = "import onnx_models, pathlib, sys; onnx_models.write(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=HERE, check=True)
    square = np.arange(8, dtype=np.float32).reshape(1, 8)
    package = packagers.create_onnx_package(
        package_path=tmp_path / "add.zip",
        model_name="adder",
        model_path=tmp_path / "add.onnx",
        input_spec=[spec("x", "n", 8), spec("y", "n", 8)],
        output_spec=[spec("out", "n", 8)],
        output_names={"out": "z"},
        test_input_data={"x": square, "y": square},
        test_expected_out={"out": 2 * square},
        environment=own("onnxruntime"),
    )
    check_round_trip(package, tmp_path, "onnxruntime")


def test_jax(tmp_path: Path) -> None:
    folder = written("jax", "jax", tmp_path)
    package = packagers.create_jax_package(
        package_path=tmp_path / "add.zip",
        model_path=folder / "add.jaxexport",
        input_names={"x": "input_0", "y": "input_1"},
        environment=own("jax"),
        **ADDS,
    )
    check_round_trip(package, tmp_path, "jax")


@pytest.mark.parametrize("environment", ["sklearn-0.23", "sklearn"])
def test_sklearn(environment: str, tmp_path: Path) -> None:
    folder = written("sklearn", environment, tmp_path)
    rows = np.array([[0.0], [2.0]])
    package = packagers.create_sklearn_package(
        package_path=tmp_path / "tree.zip",
        model_name="tree",
        model_path=folder / "tree.joblib",
        input_spec=[spec("rows", "n", 1, dtype="float64")],
        output_spec=[spec("label", "n", dtype="int64")],
        test_input_data={"rows": rows},
        test_expected_out={"label": np.array([7, 9])},
        environment=own(environment),
    )
    check_round_trip(package, tmp_path, "scikit-learn")


def test_keras(tmp_path: Path) -> None:
    folder = written("keras", "tensorflow-2.21", tmp_path)
    rows = X.reshape(2, 2)
    package = packagers.create_keras_package(
        package_path=tmp_path / "net.zip",
        model_name="net",
        model_path=folder / "net.keras",
        input_spec=[spec("x", "n", 2)],
        output_spec=[spec("y", "n", 2)],
        test_input_data={"x": rows},
        test_expected_out={"y": 3 * rows},
        environment=own("tensorflow-2.21"),
    )
    check_round_trip(package, tmp_path, "keras")
