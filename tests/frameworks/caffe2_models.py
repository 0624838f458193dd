"""Nets of Caffe2, as torch 1.x carries it. Python >= 3.7; subject.py says what the names here mean."""

import os
import sys

import numpy as np
from caffe2.proto import caffe2_pb2
from caffe2.python import core, workspace

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from subject import BIAS, WEIGHTS, Subject

NAME = "caffe2"


def given(name, values):
    """An operator that makes a blob of these values."""
    kind = {"f": "GivenTensorFill", "i": "GivenTensorIntFill"}[values.dtype.kind]
    return core.CreateOperator(kind, [], [name], shape=values.shape, values=values.ravel().tolist())


def write(folder, init, predict, inputs, outputs, name="net"):
    """Write both nets, made of these operators; returns the folder."""
    for file, operators, ends in (
        ("init_net.pb", init, ([], [one for operator in init for one in operator.output])),
        ("predict_net.pb", predict, (inputs, outputs)),
    ):
        net = caffe2_pb2.NetDef()
        net.name = name + ("_init" if file.startswith("init") else "")
        net.op.extend(operators)
        net.external_input.extend(ends[0])
        net.external_output.extend(ends[1])
        with open(os.path.join(folder, file), "wb") as opened:
            opened.write(net.SerializeToString())
    return folder


AFFINE_INIT = [given("w", np.ascontiguousarray(WEIGHTS.T)), given("b", BIAS)]
AFFINE = [core.CreateOperator("FC", ["x", "w", "b"], ["y"])]


def affine_nets(folder):
    return write(folder, AFFINE_INIT, AFFINE, ["x", "w", "b"], ["y"])


def direct(x):
    """The net, by Caffe2 itself."""
    workspace.SwitchWorkspace("direct", True)
    workspace.ResetWorkspace()
    workspace.FeedBlob("x", x)
    for operator in AFFINE_INIT + AFFINE:
        workspace.RunOperatorOnce(operator)
    return workspace.FetchBlob("y")


def nets(folder):
    return Subject("caffe2", affine_nets(folder), direct, output="y")


SUBJECTS = {"nets": nets}
#: Those that Copy takes; torch 1.4 lacks the wider unsigned ones.
DTYPES = dict.fromkeys("bool int8 int16 int32 int64 uint8 float16 float32 float64".split(), True)
DTYPES.update(dict.fromkeys(["uint16", "uint32", "uint64"], False))


def echo(folder, dtype):
    write(folder, [], [core.CreateOperator("Copy", ["x"], ["y"])], ["x"], ["y"])
    return Subject("caffe2", folder, None, output="y")


def junk(folder):
    affine_nets(folder)
    path = os.path.join(folder, "predict_net.pb")
    with open(path, "wb") as file:
        file.write(b"\xff" * 100)
    return NAME, "caffe2", folder, {}


def unknown_operator(folder):
    write(folder, [], [core.CreateOperator("OperatorOfTheFuture", ["x"], ["y"])], ["x"], ["y"])
    return NAME, "caffe2", folder, {}


BAD = {"junk": junk, "unknown_operator": unknown_operator}
