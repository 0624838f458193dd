"""Caffe2 models: a folder with ``init_net.pb``, which makes the weights, and ``predict_net.pb``, which is run. Wheels of torch 1.x carry Caffe2.

Inputs are torch tensors over the arrays' memory, which Caffe2 takes as they are; outputs are tensors over Caffe2's own memory, which the worker
copies. An operator of the net that works in place on an input writes into the caller's array. Texts are copied both ways.
"""

from __future__ import annotations

import os

from caffe2.proto import caffe2_pb2
from caffe2.python import workspace
from google.protobuf.message import DecodeError

from opexec.workers.platforms import Platform, torch_tensors
from opexec.workers.platforms.arguments import check_options, inputs_by_name
from opexec.workers.platforms.texts import are_texts, as_objects
from opexec.workers.platforms.unreadable import first_line, unreadable

OPTIONS = ("threads",)


def load(source, options):
    """Load a folder with ``init_net.pb`` and ``predict_net.pb``. Options: `threads`, how many Caffe2 computes with within one operator.

    Raises FileNotFoundError if one of the two is not there, RuntimeError for nets that this Caffe2 cannot read or make.
    """
    check_options("caffe2", options, OPTIONS)
    torch_tensors.set_threads(options)  # Caffe2's operators use the same pool
    init, predict = [_net(os.path.join(source, name)) for name in ("init_net.pb", "predict_net.pb")]
    # A workspace of the model's own: blobs of other models in this process may have the same names.
    space = workspace.Workspace()
    try:
        space.run(init)
        given = set(predict.external_input)
        for name in given.difference(space.blobs):
            space.create_blob(name)
        if options.get("threads"):
            predict.num_workers = options["threads"]
        space.create_net(predict)
    except RuntimeError as error:
        raise _unreadable(source, error) from error
    made = {name for operator in init.op for name in operator.output}
    inputs = [name for name in predict.external_input if name not in made]
    return Model(space, predict.name, inputs, list(predict.external_output))


class Model(Platform):
    framework = "caffe2"
    version = torch_tensors.VERSION

    def __init__(self, space, net, inputs, outputs):
        blobs = space.blobs
        if not outputs:
            raise ValueError("the predict net names no outputs: its external_output is empty")
        self._space = space
        self._net = space.nets[net]
        self._names = inputs
        self._inputs = [blobs[name] for name in inputs]
        self._outputs = [(name, blobs[name]) for name in outputs]

    def bind(self, args, kwargs):
        arrays = inputs_by_name(self._names, args, kwargs)
        return [_fed(name, array) for name, array in arrays.items()]

    def run(self, bound, reserve):
        for blob, value in zip(self._inputs, bound):
            blob.feed(value)
        self._net.run()
        return {name: _value(name, blob) for name, blob in self._outputs}


def _fed(name, array):
    """What a blob is fed: a tensor, whose memory it takes, or an array of texts, which it copies."""
    return as_objects(array) if are_texts(array.dtype) else torch_tensors.argument(name, array)


def _value(name, blob):
    if not blob.is_tensor():
        raise TypeError("output {!r} of the net is no tensor".format(name))
    try:
        return blob.to_torch()
    except RuntimeError:  # texts: torch has no tensor of them
        return blob.fetch()


def _net(path):
    if not os.path.isfile(path):
        raise FileNotFoundError("no such file: {}".format(path))
    net = caffe2_pb2.NetDef()
    try:
        with open(path, "rb") as file:
            net.ParseFromString(file.read())
    except DecodeError as error:
        raise _unreadable(path, error) from error
    return net


def _unreadable(source, error):
    reader = "caffe2 {} (in torch)".format(torch_tensors.VERSION)
    return unreadable(reader, source, first_line(error), "torch==1.4.0", "protobuf<3.21", "future")
