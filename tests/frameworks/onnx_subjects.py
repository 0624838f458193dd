"""The model of onnx_models.py that the conformance suite takes. Python >= 3.7; see subject.py."""

import os

import onnxruntime
from subject import Subject


def affine(folder):
    path = os.path.join(os.path.dirname(folder), "affine.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return Subject(
        "onnx",
        path,
        lambda x: session.run(None, {"x": x})[0],
        output="y",
        inputs=[{"name": "x", "dtype": "float32", "shape": ["n", 4]}],
        outputs=[{"name": "y", "dtype": "float32", "shape": ["n", 3]}],
    )


def echo(folder, dtype):
    path = os.path.join(os.environ["OPEXEC_TEST_MODELS"], "echo_" + dtype + ".onnx")
    return Subject("onnx", path, None, output="y")


def echoes(folder, dtypes):
    path = os.path.join(os.environ["OPEXEC_TEST_MODELS"], "echoes.onnx")
    return Subject("onnx", path, None), {dtype: ("x_" + dtype, "y_" + dtype) for dtype in dtypes}


def junk(folder):
    path = os.path.join(folder, "junk.onnx")
    with open(path, "wb") as file:
        file.write(b"\xff" * 100)
    return "onnxruntime", "onnx", path, {}


SUBJECTS = {"onnx": affine}
DTYPES = dict.fromkeys(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split(), True
)
BAD = {"junk": junk}
