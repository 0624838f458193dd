"""A graph that a session of TensorFlow runs on arrays that lie in shared memory. The same code for TensorFlow 1 and 2.

Copies. A fed array that begins on 64 bytes, as all that callers send does, is read where it lies. A fetched array is the memory that TensorFlow computed it into, so the one
copy is the worker's own. An output that is nothing but an input, a constant or a variable of the graph is copied by TensorFlow as
well, because its memory is not the caller's alone.
"""

from __future__ import annotations

import os

import tensorflow
from tensorflow.core.protobuf import config_pb2

from opexec.ipc import wire
from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import check_dtype, check_shape, cuda_index, inputs_by_name
from opexec.workers.platforms.tensorflow_arrays import given, taker

tf = tensorflow.compat.v1

_NUMBERS = set(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
)


def new_session(graph, options):
    """A session over `graph` on the device and with the threads that `options` ask for.

    Raises RuntimeError if the device is a GPU and this TensorFlow has none.
    """
    config = config_pb2.ConfigProto(allow_soft_placement=True)  # a graph may name devices of another machine
    if options.get("threads"):
        config.intra_op_parallelism_threads = options["threads"]
        config.inter_op_parallelism_threads = -1  # one operation after the other, in the thread that calls
    gpu = cuda_index(options)
    if gpu is None:
        config.device_count["GPU"] = 0
    else:
        check_gpu(gpu)
        config.gpu_options.visible_device_list = str(gpu)
        config.gpu_options.allow_growth = True  # other models may compute there too
    return tf.Session(graph=graph, config=config)


def check_gpu(index):
    """The GPUs that TensorFlow sees. Raises RuntimeError, saying why, if it cannot compute on the one with that number."""
    found = tf.config.experimental.list_physical_devices("GPU")
    if index < len(found):
        return found
    if not tf.test.is_built_with_cuda():
        cure = "it was built without CUDA: give the model an environment with a build that has it"
    else:
        cure = "it sees {}: check nvidia-smi, CUDA_VISIBLE_DEVICES ({!r}) and TensorFlow's log".format(
            [one.name for one in found] or "none", os.environ.get("CUDA_VISIBLE_DEVICES")
        )
    raise RuntimeError("tensorflow {} has no GPU {}; {}".format(tensorflow.__version__, index, cure))


class Model(Platform):
    """The tensors `inputs` and `outputs`, both ``{name: tf.Tensor}``, of a session's graph.

    `optional`: the names of inputs that a call may leave out. Whoever knows the graph says which (`may_be_left_out`); by default none.
    `gives`: the names of the outputs.
    """

    framework = "tensorflow"
    version = tensorflow.__version__
    aligned = True

    def __init__(self, session, inputs, outputs):
        self._session = session
        self._inputs = {name: _Fed(name, tensor) for name, tensor in inputs.items()}
        self.optional: frozenset[str] = frozenset()
        self.inputs = [_spec(name, tensor, "string") for name, tensor in inputs.items()]
        specs = [_spec(name, tensor, "bytes") for name, tensor in outputs.items()]
        self.outputs = None if any(spec["dtype"] is None for spec in specs) else specs
        self.gives = list(outputs)
        self._takers = [(name, taker(tensor.dtype.base_dtype.name)) for name, tensor in outputs.items()]
        with session.graph.as_default():
            # A session refuses to fetch what it is fed.
            fetched = [tf.identity(one) if one in inputs.values() else one for one in outputs.values()]
        session._extend_graph()
        self._fetches = [tensor._as_tf_output() for tensor in fetched]

    def may_be_left_out(self, names):
        """Let calls do without these inputs."""
        self.optional = names
        for spec in self.inputs or ():
            if spec["name"] in names:
                spec["optional"] = True

    def bind(self, args, kwargs):
        arrays = inputs_by_name(list(self._inputs), args, kwargs, self.optional)
        return {self._inputs[name].node: self._inputs[name].array(array) for name, array in arrays.items()}

    def run(self, bound, reserve):
        # What Session.run ends in. It takes feeds and fetches apart anew for each call, which costs more than many a model; the callables
        # that a session makes are quick too, but up to 2.10 or so they copy what they return.
        values = self._session._call_tf_sessionrun(None, bound, self._fetches, [], None)
        return {name: take(value) for (name, take), value in zip(self._takers, values)}


class _Fed:
    """An input of the graph: makes arrays into what a session reads in place."""

    def __init__(self, name, tensor):
        self.node = tensor._as_tf_output()
        self._name = name
        self._shape = _shape(tensor)
        self._dtype = tensor.dtype.base_dtype
        kind = self._dtype.name
        if kind not in _NUMBERS and kind != "string" and kind not in wire.EXTENSIONS:
            raise TypeError(
                "input {!r} ({}) is of TensorFlow's kind {}, which no array can be given for".format(
                    name, tensor.name, kind
                )
            )

    def array(self, array):
        # What is called below Session.run checks neither.
        check_shape(self._name, array.shape, self._shape)
        check_dtype(self._name, array.dtype, self._dtype.name)
        return given(array, self._dtype)


def _spec(name, tensor, text):
    kind = tensor.dtype.base_dtype.name
    if kind == "string":
        kind = text
    elif kind not in _NUMBERS and kind not in wire.EXTENSIONS:
        kind = None
    return {"name": name, "dtype": kind, "shape": _shape(tensor)}


def _shape(tensor):
    return tensor.shape.as_list() if tensor.shape.rank is not None else None
