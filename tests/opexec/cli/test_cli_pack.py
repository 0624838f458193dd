"""`opexec pack`, of files and of packages; and with a file of each framework, into a package that brings its environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from opexec import Environment, TensorSpec
from opexec.package import read
from opexec.problem import Problem
from tests.command import opexec, opexec_here
from tests.frameworks.environments import ENVIRONMENTS, built
from tests.frameworks.subject import affine, rows
from tests.opexec.packages.package_samples import PUBLISHED
from tests.scales import affine_onnx, factory, problem_file


def test_a_model_file_becomes_a_package_that_runs(tmp_path: Path) -> None:
    model = affine_onnx(tmp_path / "two.onnx", 2, 1)
    done = opexec("pack", model, tmp_path / "scale.zip", "--versions", ">=1.4")
    assert done.status == 0 and done.out.strip() == str(tmp_path / "scale.zip"), done.err
    made = read(tmp_path / "scale.zip")
    assert (made.name, made.platform, made.platform_version_semver) == ("scale", "onnx", ">=1.4")
    assert [spec.shape for spec in made.inputs] == [("n",)] and not made.has_test_data
    ran = opexec_here("run", tmp_path / "scale.zip", "-i", "x=[1, 2]", "--json")
    assert json.loads(ran.out)["outputs"]["y"]["data"] == [3.0, 5.0], ran.err


def test_the_problems_case_is_the_test_data(tmp_path: Path) -> None:
    model = affine_onnx(tmp_path / "two.onnx", 2, 1)
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    done = opexec_here(
        "pack", model, tmp_path / "scale", "--problem", problem, "--folder", "--name", "scaling"
    )
    assert done.status == 0, done.err
    assert read(tmp_path / "scale").name == "scaling"
    told = json.loads(opexec_here("verify", tmp_path / "scale", "--json").out)
    assert told["manifest"]["matches"] is True and told["test_data"]["right"] is True


def test_a_wrong_answer_leaves_nothing(tmp_path: Path) -> None:
    model = affine_onnx(tmp_path / "three.onnx", 3, 1)
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    before = sorted(tmp_path.iterdir())
    done = opexec_here("pack", model, tmp_path / "scale.zip", "--problem", problem)
    assert done.status == 1 and "not what was expected" in done.err and done.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_package_is_written_anew(tmp_path: Path) -> None:
    folder = PUBLISHED / "tf_addition_model"
    for target, run in (("first.zip", opexec), ("second.zip", opexec_here)):
        assert run("pack", folder, tmp_path / target).status == 0
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    assert opexec_here("pack", tmp_path / "first.zip", tmp_path / "again", "--folder").status == 0
    assert (tmp_path / "again" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    done = opexec_here("pack", folder, tmp_path / "third.zip", "--name", "other")
    assert done.status == 2 and "only --folder and --max-unpacked go with it" in done.err


def test_what_cannot_be_packaged_is_told(tmp_path: Path) -> None:
    model = affine_onnx(tmp_path / "two.onnx", 2, 1)
    (tmp_path / "there.zip").write_text("mine")
    done = opexec_here("pack", model, tmp_path / "there.zip")
    assert (
        done.status == 1 and "exists already" in done.err and (tmp_path / "there.zip").read_text() == "mine"
    )
    done = opexec_here("pack", factory("plus_one"), tmp_path / "a.zip")
    assert done.status == 1 and "packaged by a program" in done.err
    done = opexec_here("pack", model, tmp_path / "a.zip", "--node", "x=y")
    assert done.status == 2 and "has no nodes" in done.err
    done = opexec_here(
        "pack", PUBLISHED / "tf_addition_model/0/data/model.pb", tmp_path / "a.zip", "--problem", "none"
    )
    assert done.status == 1 and "none" in done.err


# ---- with an environment of its own

FRAMEWORKS = Path(__file__).parents[2] / "frameworks"
X = rows(3)

#: Platform -> the environment of a framework, the file that writes its models there, one of them, and options for it.
FILES = {
    "tensorflow": (
        *("tensorflow-1.15", "tensorflow_models.py", "graph"),
        ["--node", "x=x", "--node", "y=y:0"],
    ),
    "keras": ("tensorflow-1.15", "keras_models.py", "h5", []),
    "torchscript": ("torch-1.4", "torch_models.py", "torchscript", []),
    "jax": ("jax", "jax_models.py", "export", []),
    "sklearn": ("sklearn-0.23", "sklearn_models.py", "joblib", []),
}


def asked(environment: Environment) -> list[str]:
    """The options by which a package asks for that environment."""
    options = ["--python", str(environment.python)]
    for requirement in environment.requirements:
        options += ["--requirement", requirement]
    return options


@pytest.mark.slow
def test_the_package_runs_in_the_environment_that_was_asked_for(tmp_path: Path) -> None:
    built("onnxruntime")
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    model = affine_onnx(tmp_path / "two.onnx", 2, 1)
    done = opexec_here(
        *("pack", model, tmp_path / "scale.zip", "--problem", problem, *asked(ENVIRONMENTS["onnxruntime"]))
    )
    assert done.status == 0, done.err
    environment = read(tmp_path / "scale.zip").environment
    assert environment is not None and environment.python == "3.13"
    assert environment.requirements == tuple(ENVIRONMENTS["onnxruntime"].requirements)
    ran = json.loads(opexec_here("verify", tmp_path / "scale.zip", "--json").out)["test_data"]
    assert ran["right"] is True and ran["runs_in"]["python"].startswith("3.13.")


@pytest.mark.slow
@pytest.mark.parametrize("platform", FILES)
def test_a_file_of_each_framework_becomes_a_package(tmp_path: Path, platform: str) -> None:
    """Each is tried on its test data in its own environment, before it appears."""
    environment, models, subject, options = FILES[platform]
    written = [built(environment), "-I", FRAMEWORKS / "write_subject.py", models, subject, tmp_path]
    subprocess.run(written, check=True, capture_output=True)
    about = json.loads((tmp_path / "subject.json").read_text())
    Problem(
        "affine",
        [TensorSpec(about["input"], "float32", ("n", 4))],
        [TensorSpec(about["output"], "float32", ("n", 3))],
        [({about["input"]: X}, {about["output"]: affine(X)})],
    ).write(tmp_path / "problem.json")
    done = opexec_here(
        *("pack", about["source"], tmp_path / "made.zip", "--problem", tmp_path / "problem.json", *options),
        *asked(ENVIRONMENTS[environment]),
    )
    assert done.status == 0, done.err
    made = read(tmp_path / "made.zip")
    assert made.platform == platform and made.has_test_data and made.environment is not None
    assert made.environment.python == ENVIRONMENTS[environment].python
