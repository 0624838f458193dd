"""`threads` and `cpus` hold for what the frameworks start themselves, as the kernel sees it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
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

#: An environment -> what is loaded there: a model that multiplies matrices, one after the other.
MODELS = {
    "torch-1.4": ("torch", f"{HERE / 'array_factories.py'}:multiplying"),
    "torch-2.13": ("torch", f"{HERE / 'array_factories.py'}:multiplying"),
    "tensorflow-1.15": ("tensorflow", "1.15.5/multiplying.pb"),
    "tensorflow-2.21": ("tensorflow", "1.15.5/multiplying.pb"),
    "jax": ("jax", f"{HERE / 'array_factories.py'}:multiplying"),
    "onnxruntime": ("onnx", "multiplying.onnx"),
}

#: Of processor time, in a unit of the kernel's (10 ms mostly): so much that threads which only look for work do not count.
ENOUGH = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models lie that are files."""
    folder = tmp_path_factory.mktemp("multiplying")
    nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"y{i}", "x"], [f"y{i + 1}"]) for i in range(5)]
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "n"])
    product = helper.make_tensor_value_info("y5", TensorProto.FLOAT, ["n", "n"])
    graph = helper.make_graph(nodes, "multiplying", [rows], [product])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 6
    onnx.save(model, str(folder / "multiplying.onnx"))
    command = [built("tensorflow-1.15"), HERE / "tensorflow_models.py", folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def loaded(environment: str, folder: Path, **arguments: Any) -> opexec.Model:
    platform, source = MODELS[environment]
    return opexec.load(folder / source, platform=platform, env=built(environment), **arguments)


def square(model: opexec.Model) -> np.ndarray[Any, Any]:
    """An input whose powers all are itself."""
    x = model.empty("x", (1000, 1000), np.float32)
    x[...] = 1e-3
    return x


def threads(model: opexec.Model) -> Iterator[int]:
    for thread in os.listdir(f"/proc/{model.workers[0].pid}/task"):
        yield int(thread)


def ticks(model: opexec.Model) -> dict[int, int]:
    """The processor time that each thread of the worker has used."""
    used = {}
    for thread in threads(model):
        stat = Path(f"/proc/{model.workers[0].pid}/task/{thread}/stat").read_text()
        fields = stat.rpartition(")")[2].split()  # from the third on: the name before may hold anything
        used[thread] = int(fields[11]) + int(fields[12])  # utime, stime
    return used


@pytest.mark.parametrize("environment", MODELS)
def test_one_thread_computes_where_one_was_asked_for(environment: str, folder: Path) -> None:
    with loaded(environment, folder, threads=1) as model:
        x = square(model)
        model.infer({"x": x})  # whatever is compiled is compiled now, and all threads are there
        before, used = ticks(model), {0: 0}
        while sum(used.values()) < ENOUGH:
            model.infer({"x": x})
            used = {thread: now - before.get(thread, 0) for thread, now in ticks(model).items()}
        assert max(used.values()) >= 0.8 * sum(used.values()), used


@pytest.mark.parametrize("environment", MODELS)
def test_every_thread_keeps_to_the_cores_that_were_given(environment: str, folder: Path) -> None:
    core = min(os.sched_getaffinity(0))
    with loaded(environment, folder, cpus=[core]) as model:
        model.infer({"x": square(model)})
        kept = {thread: os.sched_getaffinity(thread) for thread in threads(model)}
        assert set(map(frozenset, kept.values())) == {frozenset({core})}, kept
