"""Writes y = 2 x + 1 as an ONNX file: ``python write_model.py PATH``, where the package onnx is installed."""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

graph = helper.make_graph(
    [helper.make_node("Mul", ["x", "two"], ["double"]), helper.make_node("Add", ["double", "one"], ["y"])],
    "affine",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
    [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("two", 2), ("one", 1))],
)
model = helper.make_model(graph, producer_name="write_model.py", opset_imports=[helper.make_opsetid("", 11)])
model.ir_version = 6  # what onnxruntime 1.4 reads
onnx.save(model, sys.argv[1])
