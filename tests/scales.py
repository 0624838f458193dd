"""Models of one small problem, y = a x + b over float32[n], to judge and to compare; the factories run in workers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

PROBLEM: dict[str, Any] = {
    "name": "scaling",
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["n"]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["n"]}],
}


def factory(name: str) -> str:
    """What `opexec.load` takes for one of the factories below."""
    return f"{__file__}:{name}"


def problem_file(folder: Path, inputs: Any = None, outputs: Any = None, **changes: Any) -> Path:
    """The problem, with one case if there are inputs."""
    cases = {} if inputs is None else {"test_data": [{"inputs": inputs, "outputs": outputs}]}
    path = folder / "problem.json"
    path.write_text(json.dumps({**PROBLEM, **cases, **changes}))
    return path


def affine_onnx(path: Path, factor: float, offset: float, shape: Any = ("n",)) -> Path:
    """y = factor x + offset, as a model that tells its specs."""
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in "xy")
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [value])
        for name, value in (("a", factor), ("b", offset))
    ]
    nodes = [helper.make_node("Mul", ["x", "a"], ["ax"]), helper.make_node("Add", ["ax", "b"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "affine", [x], [y], constants),
        opset_imports=[helper.make_opsetid("", 11)],
    )
    model.ir_version = 6
    save(model, str(path))
    return path


# ---- factories


def plus_one():
    return lambda x: {"y": 2 * x + 1, "more": x}


def a_little_more():
    return lambda x: {"y": 2 * x + np.float32(1.25)}


def another_name():
    return lambda x: {"z": 2 * x + 1}


def longer():
    return lambda x: {"y": np.concatenate([x, x])}


def failing():
    def model(x):
        raise ValueError("no such luck")

    return model


def raising():
    raise RuntimeError("broken on purpose")


def dying_in_the_second_call():
    calls = []

    def model(x):
        calls.append(1)
        if len(calls) > 1:
            os._exit(3)
        return {"y": 2 * x + 1}

    return model


def words():
    """Texts that end in the number of their place."""
    return lambda x: {"y": np.array([f"word {place}" for place in range(len(x))], object)}


def other_words():
    return lambda x: {"y": np.array(["word 0"] * len(x), object)}


def count():
    """How far the calls have come, by a file that all models append to: the order of calls can be read there."""
    path, name = os.environ["OPEXEC_TEST_ORDER"], os.getpid()

    def model(x):
        with open(path, "a") as file:
            file.write(f"{name}\n")
        return {"y": 2 * x + 1}

    return model
