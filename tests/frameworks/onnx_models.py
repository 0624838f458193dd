"""Small ONNX models that onnxruntime 1.4 and the newest both read, each with one trait that the platform has to get right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from subject import BIAS, WEIGHTS

FLOAT, INT64, BOOL, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
#: What `echo_*` models exist for; numpy's name -> ONNX's number.
ECHOES = {
    name: helper.np_dtype_to_tensor_dtype(np.dtype(name))
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
}
#: Those in one model, `echoes`.
ECHOED = ("bool", "float16")

tensor = helper.make_tensor_value_info


def write(folder: Path) -> None:
    """Write all models into `folder`, as ``name.onnx``."""
    node = helper.make_node
    rows = [tensor("x", FLOAT, ["n", 8])]

    def save(name, nodes, inputs, outputs, constants=(), opset=11, ir=6, ml=False):
        graph = helper.make_graph(nodes, name, inputs, outputs, list(constants))
        imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid("ai.onnx.ml", 1)] * ml
        model = helper.make_model(graph, opset_imports=imports)
        model.ir_version = ir
        onnx.save(model, str(folder / f"{name}.onnx"))

    # Specs of every form: a size, a symbol, sizes that are not known (and "?" as exporters write it), rank 0.
    save(
        "specs",
        [node("Add", ["a", "b"], ["sum"]), node("Shape", ["c"], ["shape"])],
        [tensor("a", FLOAT, ["batch", 3, None]), tensor("b", FLOAT, []), tensor("c", FLOAT, ["?", "?"])],
        [tensor("sum", FLOAT, ["batch", 3, None]), tensor("shape", INT64, [2])],
    )
    save(
        "add",
        [node("Add", ["x", "y"], ["z"])],
        [*rows, tensor("y", FLOAT, ["n", 8])],
        [tensor("z", FLOAT, ["n", 8])],
    )
    # What the conformance suite gives to every platform.
    save(
        "affine",
        [node("MatMul", ["x", "w"], ["product"]), node("Add", ["product", "b"], ["y"])],
        [tensor("x", FLOAT, ["n", 4])],
        [tensor("y", FLOAT, ["n", 3])],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    for name, number in ECHOES.items():
        save(
            f"echo_{name}",
            [node("Identity", ["x"], ["y"])],
            [tensor("x", number, None)],
            [tensor("y", number, None)],
        )
    save(
        "echo_string",
        [node("Identity", ["x"], ["y"])],
        [tensor("x", STRING, None)],
        [tensor("y", STRING, None)],
    )

    save(
        "echoes",
        [node("Identity", [f"x_{name}"], [f"y_{name}"]) for name in ECHOED],
        [tensor(f"x_{name}", ECHOES[name], None) for name in ECHOED],
        [tensor(f"y_{name}", ECHOES[name], None) for name in ECHOED],
    )

    # Outputs whose shapes depend on values.
    save("nonzero", [node("NonZero", ["x"], ["z"])], rows, [tensor("z", INT64, [2, "k"])])
    doubled = helper.make_graph([node("Add", ["x", "x"], ["t"])], "doubled", [], [tensor("t", FLOAT, None)])
    twice = helper.make_graph(
        [node("Concat", ["x", "x"], ["e"], axis=0)], "twice", [], [tensor("e", FLOAT, None)]
    )
    save(
        "branch",
        [node("If", ["c"], ["z"], then_branch=doubled, else_branch=twice)],
        [*rows, tensor("c", BOOL, [])],
        [tensor("z", FLOAT, ["m", 8])],
    )
    scalars = [tensor(name, FLOAT, []) for name in ("first", "end", "step")]
    ranged = [node("Range", ["first", "end", "step"], ["z"])]
    save("range", ranged, scalars, [tensor("z", FLOAT, ["k"])])
    save(
        "reshape",
        [node("Reshape", ["x", "s"], ["z"])],
        [*rows, tensor("s", INT64, [2])],
        [tensor("z", FLOAT, [None, None])],
    )

    # Outputs that no operator computes.
    save("through", [node("Identity", ["x"], ["y"])], rows, [*rows, tensor("y", FLOAT, ["n", 8])])
    save(
        "constant",
        [
            node("Constant", [], ["z"], value=numpy_helper.from_array(np.arange(5, dtype=np.float32))),
            node("Add", ["x", "k"], ["y"]),
        ],
        rows,
        [tensor("z", FLOAT, [5]), tensor("k", FLOAT, [1]), tensor("y", FLOAT, ["n", 8])],
        [numpy_helper.from_array(np.full(1, 7, np.float32), "k")],
    )

    # A model that fails for some values.
    save(
        "gather",
        [node("Gather", ["table", "i"], ["z"])],
        [tensor("i", INT64, ["n"])],
        [tensor("z", FLOAT, ["n"])],
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")],
    )

    # A result that is no tensor.
    save(
        "zipmap",
        [node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[10, 20])],
        [tensor("x", FLOAT, ["n", 2])],
        [_sequence_of_maps("z")],
        ml=True,
    )

    for name, number, opset, ir in (
        ("bfloat16", TensorProto.BFLOAT16, 13, 7),
        ("float8_e4m3fn", TensorProto.FLOAT8E4M3FN, 19, 9),
        ("float8_e5m2", TensorProto.FLOAT8E5M2, 19, 9),
    ):
        save(
            f"double_{name}",
            [
                node("Cast", ["x"], ["wide"], to=FLOAT),
                node("Add", ["wide", "wide"], ["sum"]),
                node("Cast", ["sum"], ["y"], to=number),
            ],
            [tensor("x", number, ["n"])],
            [tensor("y", number, ["n"])],
            opset=opset,
            ir=ir,
        )


def _sequence_of_maps(name: str) -> onnx.ValueInfoProto:
    value = helper.make_tensor_type_proto(FLOAT, [])
    return helper.make_value_info(
        name, helper.make_sequence_type_proto(helper.make_map_type_proto(INT64, value))
    )
