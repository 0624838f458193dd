"""One program holds old and new versions of every framework at the same time, each in the Python that it needs, and all answer alike."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from tests.frameworks.environments import built
from tests.frameworks.subject import affine, rows

HERE = Path(__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Runs:
    """``x @ W + b`` as a framework's file of models writes it, and what runs it."""

    models: str
    subject: str
    python: str
    framework: str
    version: str


#: By the names of environments.py.
SIDE_BY_SIDE = {
    "tensorflow-1.15": Runs("tensorflow_models.py", "graph", "3.7", "tensorflow", "1.15.5"),
    "tensorflow-2.4": Runs("tensorflow_models.py", "saved_model", "3.8", "tensorflow", "2.4.4"),
    "tensorflow-2.21": Runs("tensorflow_models.py", "saved_model", "3.12", "tensorflow", "2.21."),
    "torch-1.4": Runs("torch_models.py", "state_dict", "3.8", "torch", "1.4.0"),
    "torch-2.13": Runs("torch_models.py", "export", "3.11", "torch", "2.13.0"),
    "jax": Runs("jax_models.py", "export", "3.12", "jax", "0.12."),
    "onnxruntime-1.4": Runs("onnx_subjects.py", "onnx", "3.7", "onnxruntime", "1.4.0"),
    "onnxruntime": Runs("onnx_subjects.py", "onnx", "3.13", "onnxruntime", "1."),
    "sklearn-0.23": Runs("sklearn_models.py", "joblib", "3.8", "scikit-learn", "0.23.2"),
    "sklearn": Runs("sklearn_models.py", "joblib", "3.13", "scikit-learn", "1."),
}


def written(name: str, folder: Path) -> dict[str, Any]:
    """The model, made by the framework itself in its own environment; and what it answers there, called directly."""
    runs = SIDE_BY_SIDE[name]
    (folder / name).mkdir()
    finished = subprocess.run(
        [built(name), "-I", HERE / "write_subject.py", runs.models, runs.subject, folder / name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    about: dict[str, Any] = json.loads((folder / name / "subject.json").read_text())
    np.testing.assert_array_equal(about["answer"], affine(rows(3)))
    return about


def first(result: Any) -> Any:
    """The one array in what a drop-in call gives."""
    while not isinstance(result, np.ndarray):
        (result,) = result.values() if isinstance(result, dict) else result
    return result


def test_all_versions_of_all_frameworks_in_one_program(tmp_path: Path) -> None:
    for name in SIDE_BY_SIDE:
        built(name)  # a skip names the first that cannot be had
    code = "import onnx_models, pathlib, sys; onnx_models.write(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=HERE, check=True)
    with ThreadPoolExecutor(2) as pool:
        about = dict(zip(SIDE_BY_SIDE, pool.map(lambda name: written(name, tmp_path), SIDE_BY_SIDE)))

    wanted = {
        name: {
            "source": one["source"],
            "platform": one["platform"],
            "options": one["options"],
            "env": built(name),
            "threads": 1,
        }
        for name, one in about.items()
    }
    told: list[tuple[str, str]] = []
    with opexec.Supervisor() as supervisor:
        models = supervisor.load_all(wanted, progress=lambda name, step: told.append((name, step)))
        workers = {name: model.workers[0] for name, model in models.items()}
        assert len({worker.pid for worker in workers.values()}) == len(SIDE_BY_SIDE) == 10
        for name, runs in SIDE_BY_SIDE.items():
            worker = workers[name]
            assert worker.state == "ready"
            assert worker.framework == runs.framework and worker.python.startswith(runs.python + ".")
            assert worker.framework_version.startswith(runs.version)

        # The same array from every model's shared memory, seen anew by each after it changed.
        inputs = {
            name: model.empty(about[name]["input"], (8, 4), np.float32) for name, model in models.items()
        }
        held = []
        for round in range(5):
            x = rows(8) + np.float32(round)
            for array in inputs.values():
                array[...] = x
            futures = {
                name: model.submit({about[name]["input"]: inputs[name]}) for name, model in models.items()
            }
            answers = {name: future.result(60) for name, future in futures.items()}
            for name, answer in answers.items():
                assert list(answer) == [about[name]["output"]]
                np.testing.assert_array_equal(first(answer), affine(x), strict=True)
                held.append((first(answer), affine(x)))
        for answer, expected in held:
            np.testing.assert_array_equal(answer, expected)

        for name, model in models.items():
            stats = model.stats()
            assert (name, stats.calls, stats.bytes_copied_in) == (name, 5, 0)
            assert stats.bytes_copied_out <= 5 * 8 * 3 * 4
            # Where the framework can write into memory that it is given, all but the first two answers are not copied either.
            if SIDE_BY_SIDE[name].framework == "onnxruntime":
                assert stats.bytes_copied_out <= 2 * 8 * 3 * 4
        assert {name for name, _ in told} == set(SIDE_BY_SIDE)
