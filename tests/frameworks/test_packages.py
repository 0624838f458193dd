"""Neuropod's published packages, and packages that bring an environment of their own: of old frameworks, and round trips in them.

Packagers that are given objects are tried in package_*_callers.py, where the framework is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Environment, FrameworkNotFound, LoadError, packagers
from opexec.neuropod.loader import load_neuropod
from opexec.package import read
from opexec.packages.draft import repack
from opexec.packages.test_data import read_test_data
from opexec.problem import Problem
from tests.frameworks.environments import ENVIRONMENTS, built
from tests.frameworks.package_checks import check_round_trip, check_same_model, told
from tests.frameworks.subject import affine, rows

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


@pytest.mark.parametrize(
    "environment, as_zip", [("tensorflow-1.15", False), ("tensorflow-2.4", True), ("tensorflow-2.21", False)]
)
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


def test_the_published_tensorflow_package_runs_in_an_old_and_a_new_version_at_once() -> None:
    path = PUBLISHED / "tf_addition_model"
    with (
        opexec.load(path, env=built("tensorflow-1.15")) as old,
        opexec.load(path, env=built("tensorflow-2.21")) as new,
    ):
        models = (old, new)
        before = [model.workers[0] for model in models]
        assert [worker.framework_version.rpartition(".")[0] for worker in before] == ["1.15", "2.21"]
        for number in range(5):
            x = number + np.arange(6, dtype=np.float32).reshape(2, 3)
            inputs = {"x": x, "y": x / 7}
            # Both at work at once, and then in turns.
            pending = [model.submit(inputs) for model in models]
            answers = [each.result(60)["out"] for each in pending]
            answers += [model.infer(inputs)["out"] for model in models]
            for answer in answers:
                np.testing.assert_array_equal(answer, x + x / 7, strict=True)
        assert [model.workers[0].state for model in models] == ["ready", "ready"]
        assert [model.workers[0].pid for model in models] == [worker.pid for worker in before]
        assert before[0].pid != before[1].pid


def test_a_frozen_graph_is_compared_in_an_old_and_a_new_version(tmp_path: Path) -> None:
    graph = PUBLISHED / "tf_addition_model/0/data/model.pb"
    shape = ["n", "m"]
    problem = tmp_path / "problem.json"
    Problem("addition", [spec("x", *shape), spec("y", *shape)], [spec("out", *shape)]).write(problem)
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    samples = tmp_path / "samples"
    samples.mkdir()
    np.savez(samples / "known.npz", x=x, y=x / 7, out=x + x / 7)
    np.savez(samples / "open.npz", x=x, y=7 * x)
    inputs = {"x": "some_namespace/in_x", "y": "some_namespace/in_y:0"}
    found = told(
        *("compare", problem, graph, graph, "--data", samples, "--rounds", "2"),
        *("--env", f"1:{built('tensorflow-1.15')}", "--env", f"2:{built('tensorflow-2.21')}"),
        *("--option", f"inputs={json.dumps(inputs)}", "--option", 'outputs={"out": "some_namespace/out"}'),
    )
    old, new = found["models"]
    runners = [(one["runs_in"]["framework_version"], one["runs_in"]["python"][:4]) for one in (old, new)]
    assert runners[0] == ("1.15.5", "3.7.") and runners[1][0].startswith("2.21.") and runners[1][1] == "3.12"
    assert (found["reference"], found["samples"]) == ("both", 2)
    assert (old["error"], new["error"]) == (None, None)
    assert old["answers"]["out"]["elements"] == 6 and new["answers"]["out"]["elements"] == 12
    for one in (old, new):
        assert one["answers"]["out"]["differing"] == 0 and one["answers"]["out"]["max_difference"] == 0.0
        assert one["latency"]["calls"] == 4 and one["memory"]["own"] > 0


# torch 2.13 reads TorchScript of the age of these no more.
def test_the_published_torchscript_package() -> None:
    python = built("torch-1.4")
    package = read(PUBLISHED / "torchscript_addition_model_single_output")
    inputs, expected = read_test_data(package, python)
    assert expected is not None and sorted(inputs) == ["x", "y"]
    with opexec.load(package.path, env=python) as model:
        with pytest.raises(opexec.SpecError, match="input 'x'"):
            model.infer(inputs)  # its test data has not the rank of its spec
        inputs = {name: array[None] for name, array in inputs.items()}
        np.testing.assert_array_equal(model.infer(inputs)["out"], expected["out"][None])
        with pytest.raises(opexec.SpecError, match="axis 0"):
            model.infer({**inputs, "y": np.repeat(inputs["y"], 2, axis=0)})
        with pytest.raises(opexec.ModelError, match="no argument 'optional'"):
            model.infer({**inputs, "optional": ["a"] * len(inputs["x"])})


def test_published_torchscript_is_verified() -> None:
    path = PUBLISHED / "torchscript_addition_model_single_output"
    found = told("verify", path, "--env", built("torch-1.5"))
    assert found["test_data"]["right"] is True and "input 'x'" in found["test_data"]["misfits"][0]


@pytest.mark.parametrize("environment", ["torch-1.4", "torch-1.5"])
def test_published_torchscript_takes_texts(environment: str) -> None:
    python = built(environment)
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


def test_torch(tmp_path: Path) -> None:
    code = tmp_path / "code/net"
    code.mkdir(parents=True)
    (code / "main.py").write_text("def make(data_path):\n    return lambda x, y: {'out': x.add(y)}\n")
    package = packagers.create_torch_package(
        package_path=tmp_path / "made.zip",
        code_path_spec=[{"python_root": tmp_path / "code", "dirs_to_package": ["net"]}],
        entrypoint_package="net.main",
        entrypoint="make",
        environment=own("torch-1.4"),
        **ADDS,
    )
    check_round_trip(package, tmp_path, "torch")


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


def test_keras(tmp_path: Path) -> None:
    folder = written("keras", "tensorflow-1.15", tmp_path)
    given: dict[str, Any] = {
        "model_name": "affine",
        "input_spec": [spec("x", "n", 4)],
        "output_spec": [spec("y", "n", 3)],
        "test_input_data": {"x": rows(3)},
        "test_expected_out": {"y": affine(rows(3))},
        "environment": own("tensorflow-1.15"),
    }
    package = packagers.create_keras_package(
        package_path=tmp_path / "affine.zip", model_path=folder / "model.h5", **given
    )
    check_round_trip(package, tmp_path, "keras")
    check_same_model(packagers.create_keras_package, package, "model.h5", **given)


@pytest.mark.parametrize(
    "environment, version, fitting, other",
    [
        ("tensorflow-1.15", "2.2.4-tf", "2.2.x", "2.3 - 2.15"),
        ("tensorflow-2.4", "2.4.0", "^2.4", "<2.4 || 3.x"),
    ],
)
def test_the_keras_in_tensorflow_is_held_against_the_range(
    environment: str, version: str, fitting: str, other: str, tmp_path: Path
) -> None:
    """No package of that environment is called Keras: TensorFlow itself tells which version it has."""
    python, folder = built(environment), written("keras", environment, tmp_path)

    def ranged(name: str, semver: str) -> Path:
        return packagers.create_keras_package(
            package_path=tmp_path / name,
            model_name="affine",
            model_path=folder / "model.h5",
            input_spec=[spec("x", "n", 4)],
            output_spec=[spec("y", "n", 3)],
            platform_version_semver=semver,
        ).path

    with opexec.load(ranged("fitting.zip", fitting), env=python) as model:
        assert (model.workers[0].framework, model.workers[0].framework_version) == ("keras", version)
        np.testing.assert_array_equal(model.infer({"x": rows(3)})["y"], affine(rows(3)))
    with pytest.raises(FrameworkNotFound, match=f"the given environment has {version};"):
        opexec.load(ranged("other.zip", other), env=python)


def test_sklearn(tmp_path: Path) -> None:
    folder = written("sklearn", "sklearn-0.23", tmp_path)
    rows = np.array([[0.0], [2.0]])
    package = packagers.create_sklearn_package(
        package_path=tmp_path / "tree.zip",
        model_name="tree",
        model_path=folder / "tree.joblib",
        input_spec=[spec("rows", "n", 1, dtype="float64")],
        output_spec=[spec("label", "n", dtype="int64")],
        test_input_data={"rows": rows},
        test_expected_out={"label": np.array([7, 9])},
        environment=own("sklearn-0.23"),
    )
    check_round_trip(package, tmp_path, "scikit-learn")
