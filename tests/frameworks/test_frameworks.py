"""Every platform with the oldest and the newest version of its framework, each in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import opexec
from opexec import Environment

HERE = Path(__file__).parent
TOOLS = ("hypothesis", "pytest", "pytest-timeout")

OLD_ONNX = Environment("3.7", ["onnxruntime==1.4.0", *TOOLS])
NEW_ONNX = Environment("3.13", ["onnxruntime>=1.20", "ml-dtypes", *TOOLS])
OLD_TORCH = Environment("3.8", ["torch==1.4.0", *TOOLS])
NEW_TORCH = Environment(None, ["torch==2.13.0", "ml-dtypes", *TOOLS])

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def built(environment: Environment) -> Path:
    """Its interpreter. Where one cannot be had, the tests that need it are skipped, but not on a CI machine."""
    try:
        return environment.resolve()
    except opexec.BuildError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{environment} cannot be built here: {error}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ONNX models; writing them needs the package onnx, which the environments do not have."""
    folder = tmp_path_factory.mktemp("models")
    code = "import onnx_models, pathlib, sys; onnx_models.write(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, folder], cwd=HERE, check=True)
    return folder


@pytest.mark.parametrize(
    "cases, environment",
    [
        ("onnx_cases.py", OLD_ONNX),
        ("onnx_cases.py", Environment("3.7", ["onnxruntime==1.14.1", *TOOLS])),
        ("onnx_cases.py", NEW_ONNX),
        ("torchscript_cases.py", OLD_TORCH),
        ("torchscript_cases.py", NEW_TORCH),
    ],
    ids=str,
)
def test_cases_pass_there(
    cases: str, environment: Environment, models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.xml"
    with capfd.disabled():
        interpreter = built(environment)
        print(f"\n{cases} in {environment}:", flush=True)
        finished = subprocess.run(
            [interpreter, "-I", HERE / "run.py", cases, "--quiet", f"--junit-xml={report}"],
            cwd=tmp_path,
            env={**os.environ, "OPEXEC_TEST_MODELS": str(models)},
            stdin=subprocess.DEVNULL,
        )
    assert finished.returncode == 0
    (suite,) = ElementTree.parse(report).iter("testsuite")
    assert int(suite.attrib["tests"]) > 50 and suite.attrib["skipped"] == "0"


@pytest.mark.parametrize("environment", [OLD_ONNX, NEW_ONNX], ids=str)
def test_an_onnx_model_answers_in_a_worker_as_in_process_and_nothing_is_copied(
    environment: Environment, models: Path
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


@pytest.mark.parametrize("environment", [OLD_ONNX, NEW_ONNX], ids=str)
def test_texts_reach_an_onnx_model_and_come_back(environment: Environment, models: Path) -> None:
    texts = np.array([["one", ""], ["b\u00fc\u4e2d\U0001f600", "x" * 5000]], object)
    with opexec.load(models / "echo_string.onnx", env=built(environment)) as model:
        assert model(texts)["y"].tolist() == texts.tolist()


def test_bfloat16_reaches_an_onnx_model_and_comes_back(models: Path) -> None:
    x = np.array([1, -2.5, 0], ml_dtypes.bfloat16)
    with opexec.load(models / "double_bfloat16.onnx", env=built(NEW_ONNX)) as model:
        for _ in range(3):
            y = model.infer({"x": x})["y"]
            assert y.dtype == x.dtype
            assert y.astype(np.float32).tolist() == [2, -5, 0]


def saved(environment: Environment, folder: Path) -> Path:
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


@pytest.mark.parametrize("environment", [OLD_TORCH, NEW_TORCH], ids=str)
def test_a_torchscript_model_gives_what_it_returned(environment: Environment, tmp_path: Path) -> None:
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
    path = saved(NEW_TORCH, tmp_path)
    with pytest.raises(
        opexec.LoadError, match=r"torch 1\.4\.0 cannot read .*model\.pt.*Environment\("
    ) as caught:
        opexec.load(path, env=built(OLD_TORCH))
    assert caught.value.stage == "load"
