"""`threads` and `cpus` hold for what the frameworks start themselves, as the kernel sees it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import opexec
from tests.frameworks.environments import built

HERE = Path(__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_FACTORY = f"{HERE / 'array_factories.py'}:multiplying"
_ROWS = (20000, 4)


@dataclass(frozen=True)
class Computing:
    """A model that keeps its framework busy: most of them multiply matrices, one after the other."""

    environment: str
    platform: str
    source: str
    """A file in a folder that is called like what wrote it, or a factory."""
    shape: tuple[int, ...] = (1000, 1000)


MODELS = {
    "torch-1.4": Computing("torch-1.4", "torch", _FACTORY),
    "torch-2.13": Computing("torch-2.13", "torch", _FACTORY),
    "tensorflow-1.15": Computing("tensorflow-1.15", "tensorflow", "1.15.5/multiplying.pb"),
    "tensorflow-2.4": Computing("tensorflow-2.4", "tensorflow", "1.15.5/multiplying.pb"),
    "tensorflow-2.21": Computing("tensorflow-2.21", "tensorflow", "1.15.5/multiplying.pb"),
    "jax": Computing("jax", "jax", _FACTORY),
    "onnxruntime-1.4": Computing("onnxruntime-1.4", "onnx", "onnx/multiplying.onnx"),
    "onnxruntime": Computing("onnxruntime", "onnx", "onnx/multiplying.onnx"),
    "keras-tensorflow": Computing("tensorflow-2.21", "keras", "keras-jax/dense.keras"),
    "keras-jax": Computing("keras-jax", "keras", "keras-jax/dense.keras"),
    "keras-torch": Computing("keras-torch", "keras", "keras-jax/dense.keras"),
    "caffe2": Computing("caffe2", "caffe2", "caffe2/caffe2"),
    **{
        f"{environment}-{file}": Computing(environment, "sklearn", f"{environment}/{file}", _ROWS)
        for environment in ("sklearn-0.23", "sklearn")
        for file in ("forest.joblib", "xgboost.ubj", "xgboost.joblib", "lightgbm.txt", "lightgbm.joblib")
    },
}

#: An environment -> what computing_models.py writes there.
WRITTEN = {
    "keras-jax": ["keras"],
    "caffe2": ["caffe2"],
    "sklearn-0.23": ["forest", "xgboost", "lightgbm"],
    "sklearn": ["forest", "xgboost", "lightgbm"],
}

#: Of processor time, in a unit of the kernel's (10 ms mostly): so much that threads which only look for work do not count.
ENOUGH = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models lie that are files."""
    folder = tmp_path_factory.mktemp("computing")
    nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"y{i}", "x"], [f"y{i + 1}"]) for i in range(5)]
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "n"])
    product = helper.make_tensor_value_info("y5", TensorProto.FLOAT, ["n", "n"])
    graph = helper.make_graph(nodes, "multiplying", [rows], [product])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 6
    (folder / "onnx").mkdir()
    onnx.save(model, str(folder / "onnx" / "multiplying.onnx"))
    command = [built("tensorflow-1.15"), HERE / "tensorflow_models.py", folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def loaded(name: str, folder: Path, **arguments: Any) -> opexec.Model:
    computing = MODELS[name]
    writer = computing.source.partition("/")[0]
    if writer in WRITTEN and not (folder / writer).exists():
        command = [built(writer), HERE / "computing_models.py", *WRITTEN[writer], folder / writer]
        subprocess.run(command, check=True, capture_output=True)
    return opexec.load(
        folder / computing.source,
        platform=computing.platform,
        env=built(computing.environment),
        **arguments,
    )


def given(name: str, model: opexec.Model) -> np.ndarray[Any, Any]:
    """An input; of the matrices the powers all are the matrix itself."""
    x = model.empty("x", MODELS[name].shape, np.float32)
    x[...] = 1e-3
    return x


def threads(model: opexec.Model) -> Iterator[int]:
    for thread in os.listdir(f"/proc/{model.workers[0].pid}/task"):
        yield int(thread)


def ticks(model: opexec.Model) -> tuple[dict[int, int], int]:
    """The processor time that each thread of the worker has used, and the worker in all: threads that have ended count there alone."""
    process = Path(f"/proc/{model.workers[0].pid}")
    used = {}
    for thread in threads(model):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            used[thread] = _ticks(process / f"task/{thread}/stat")
    return used, _ticks(process / "stat")


def _ticks(stat: Path) -> int:
    # From the third on: the name before them may hold anything.
    fields = stat.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # utime, stime


@pytest.mark.parametrize("name", MODELS)
def test_one_thread_computes_where_one_was_asked_for(name: str, folder: Path) -> None:
    with loaded(name, folder, threads=1) as model:
        x = given(name, model)
        model(x)  # whatever is compiled is compiled now, and all threads are there
        (before, start), used, total = ticks(model), {0: 0}, 0
        while total < ENOUGH:
            model(x)
            now, end = ticks(model)
            used, total = (
                {thread: spent - before.get(thread, 0) for thread, spent in now.items()},
                end - start,
            )
        assert max(used.values()) >= 0.8 * total, (used, total)


# Of the others none makes threads that the libraries of these do not.
@pytest.mark.parametrize(
    "name", [name for name in MODELS if MODELS[name].platform in ("torch", "tensorflow", "jax", "onnx")]
)
def test_every_thread_keeps_to_the_cores_that_were_given(name: str, folder: Path) -> None:
    core = min(os.sched_getaffinity(0))
    with loaded(name, folder, cpus=[core]) as model:
        model(given(name, model))
        kept = {thread: os.sched_getaffinity(thread) for thread in threads(model)}
        assert set(map(frozenset, kept.values())) == {frozenset({core})}, kept
