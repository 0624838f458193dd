"""Packagers that are given objects of onnx. Run by test_package_callers.py, where onnx and onnxruntime are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import opexec
from opexec import packagers
from tests.frameworks.package_checks import check_here, check_packager, check_wrong_answer

X = np.arange(8, dtype=np.float32).reshape(4, 2)
GIVEN: dict[str, Any] = {
    "model_name": "scales",
    "input_spec": [{"name": "x", "dtype": "float32", "shape": ["n", 2]}],
    "output_spec": [{"name": "out", "dtype": "float32", "shape": ["n", 2]}],
    "output_names": {"out": "y"},
    "test_input_data": {"x": X},
    "test_expected_out": {"out": X * np.array([2, 3], np.float32)},
}


def scales() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scales",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.array([2, 3], np.float32), "factor")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def test_a_model_and_its_bytes(tmp_path: Path) -> None:
    check_packager(packagers.create_onnx_package, tmp_path / "a", model=scales(), **GIVEN)
    check_wrong_answer(packagers.create_onnx_package, tmp_path, model=scales(), **GIVEN)
    package = packagers.create_onnx_package(
        package_path=tmp_path / "b", model=scales().SerializeToString(), **GIVEN
    )
    check_here(package, GIVEN)


def test_external_data(tmp_path: Path) -> None:
    written = tmp_path / "written"
    written.mkdir()
    onnx.save_model(
        scales(), written / "m.onnx", save_as_external_data=True, location="m.weights", size_threshold=0
    )
    check_packager(
        packagers.create_onnx_package,
        tmp_path / "a",
        model_path=written / "m.onnx",
        data_paths=[{"path": written / "m.weights"}],
        **GIVEN,
    )
    with pytest.raises(opexec.OpexecError, match=r"m\.weights"):  # what it needs was not given
        packagers.create_onnx_package(package_path=tmp_path / "b", model_path=written / "m.onnx", **GIVEN)
    assert not (tmp_path / "b").exists()
