"""ONNX models, run by onnxruntime, on the CPU or on a CUDA GPU.

On the CPU, inputs are bound where they lie, once for each place; outputs are bound to memory that `reserve` gives, with the shapes that an earlier run
had for inputs of the same shapes. onnxruntime compares a bound shape with the one it computes before it writes anything, and raises
if they differ (tests/frameworks watch that it does); then the run is repeated with outputs of onnxruntime's own.

On a GPU nothing stays bound: what is bound goes to the GPU when it is bound, not when the model runs. Each run copies its inputs there, and its
outputs back.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import onnxruntime

from opexec.ipc import wire
from opexec.workers.arrays import address, native
from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import check_dtype, check_options, cuda_index, inputs_by_name
from opexec.workers.platforms.dtypes import dtype_of
from opexec.workers.platforms.texts import are_texts, as_objects, decoded
from opexec.workers.platforms.unreadable import unreadable

#: Element types as onnxruntime writes them -> names of dtypes.
DTYPES = {
    "float": "float32",
    "double": "float64",
    "string": "string",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
}
DTYPES.update(
    (name, name)
    for name in "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 complex64 complex128".split()
)

#: Kinds that numpy lacks -> their number in ONNX (onnx.proto, TensorProto.DataType).
ELEMENT_NUMBERS = {
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
}
NUMBERS_SINCE = (1, 20)  # the onnxruntime that takes them

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_SHAPES_KEPT = 64
_BINDINGS_KEPT = 4  # for each place of inputs: a caller that holds one answer while it asks for the next has two of outputs


def load(source, options):
    """Load an ONNX file, whatever it is called. Options: `threads`, how many onnxruntime uses within one operator; `device`, ``"cpu"`` or
    ``"cuda:N"``; `cuda`, a dict of settings for onnxruntime's CUDA provider, as ``{"gpu_mem_limit": 2 << 30}``.

    Raises RuntimeError for a file that this onnxruntime cannot load, or a device that it cannot compute on, and TypeError for inputs that are
    no tensors or of a kind that it cannot be given.
    """
    check_options("onnx", options, ("threads", "device", "cuda"))
    settings = onnxruntime.SessionOptions()
    if options.get("threads"):
        settings.intra_op_num_threads = options["threads"]
        settings.inter_op_num_threads = 1
    providers = _providers(options)
    try:
        if hasattr(
            settings, "add_session_config_entry"
        ):  # those that know more than one format go by the ending otherwise
            settings.add_session_config_entry("session.load_model_format", _format(source))
        session = onnxruntime.InferenceSession(source, settings, **providers)
    except Exception as error:  # onnxruntime has a dozen classes of them
        reader = "onnxruntime {}".format(Model.version)
        raise unreadable(reader, source + _on(options), str(error), "onnxruntime==...") from error
    if providers["providers"][0] not in session.get_providers():
        # It only logs that, and goes on with the CPU.
        raise RuntimeError(
            "onnxruntime {} has {}, but could not start it{}: what it logged says why. Often a library of CUDA or cuDNN is "
            "missing, or of a version that it was not built for".format(Model.version, CUDA, _on(options))
        )
    return Model(session)


def _format(source):
    """``"ORT"`` for a file in onnxruntime's own format, which is marked as such, else ``"ONNX"``."""
    with open(source, "rb") as file:
        return "ORT" if file.read(8)[4:] == b"ORTM" else "ONNX"


def _providers(options):
    """What an InferenceSession is told of where to compute. Raises RuntimeError if this onnxruntime cannot compute on GPUs."""
    index = cuda_index(options)
    settings = {str(name): str(value) for name, value in (options.get("cuda") or {}).items()}
    if settings and (index is None or "device_id" in settings):
        raise ValueError(
            "the option cuda is {!r}, with the device {!r}; expected settings of {} without device_id, and a device "
            "'cuda:N'".format(options["cuda"], options.get("device"), CUDA)
        )
    if index is None:
        return {"providers": [CPU]}
    has = onnxruntime.get_available_providers()
    if CUDA not in has:
        raise RuntimeError(
            "the device {!r} was asked for, and onnxruntime {} has no {}; it has {}. Ask for device='cpu', or give the model an "
            "environment with a build for CUDA: Environment(requirements=['onnxruntime-gpu'])".format(
                options["device"], Model.version, CUDA, ", ".join(has)
            )
        )
    if hasattr(
        onnxruntime, "preload_dlls"
    ):  # since 1.21: CUDA's libraries where packages of Python's have them
        onnxruntime.preload_dlls()
    told: dict = {"providers": [CUDA, CPU]}  # the CPU for operators that CUDA's provider lacks
    if index:  # in a worker the GPU is the only one; versions before 1.5 can be told of no other
        settings["device_id"] = str(index)
    if settings:
        told["provider_options"] = [settings, {}]
    return told


def _on(options):
    device = options.get("device") or "cpu"
    return "" if device == "cpu" else " on the device {!r}".format(device)


class Model(Platform):
    framework = "onnxruntime"
    version = onnxruntime.__version__

    def __init__(self, session):
        self._session = session
        inputs = [_spec(one) for one in session.get_inputs()]
        outputs = [_spec(one) for one in session.get_outputs()]
        for spec, one in zip(inputs, session.get_inputs()):
            if spec["dtype"] is None:
                raise TypeError("input {!r} is {}; only tensors can be given".format(one.name, one.type))
        dtypes = [spec["dtype"] for spec in inputs + outputs]
        self.inputs: list = inputs
        self.outputs = None if None in dtypes else outputs  # what is no tensor has no spec
        self._input_names = [spec["name"] for spec in inputs]
        self._output_names = [spec["name"] for spec in outputs]
        self._output_dtypes = [spec["dtype"] for spec in outputs]
        self._extended = any(dtype in ELEMENT_NUMBERS for dtype in dtypes)
        if self._extended and _version() < NUMBERS_SINCE:
            raise TypeError(
                "the model has tensors of {}; onnxruntime takes them from version {}.{} on, and this is {}".format(
                    next(dtype for dtype in dtypes if dtype in ELEMENT_NUMBERS), *NUMBERS_SINCE, self.version
                )
            )
        # Texts are no plain memory, and an output that is an input by name is never written anywhere.
        self._binds = (
            session.get_providers()[0] == CPU
            and "string" not in dtypes
            and None not in dtypes
            and not set(self._input_names) & set(self._output_names)
        )
        self._checked = False
        # Shapes of the inputs -> specs of the outputs; None once that proved wrong.
        self._known: dict | None = {}

    def bind(self, args, kwargs):
        arrays = inputs_by_name(self._input_names, args, kwargs)
        for spec in self.inputs:
            check_dtype(spec["name"], arrays[spec["name"]].dtype, spec["dtype"])
        return _Bound(
            {
                name: _texts(name, array) if are_texts(array.dtype) else native(array)
                for name, array in arrays.items()
            }
        )

    def run(self, bound, reserve):
        known = self._known
        if known is None or not self._binds:
            return self._by_itself(bound)
        specs = known.get(bound.shapes)
        if specs is None or not bound.used:
            # Binding outputs costs more than it saves where the inputs never come to the same place again.
            bound.used = True
            outputs = self._by_itself(bound)
            if specs is None:
                if len(known) >= _SHAPES_KEPT:
                    known.clear()
                known[bound.shapes] = tuple([(name, one.dtype, one.shape) for name, one in outputs.items()])
            return outputs
        outputs = reserve(specs)
        try:
            binding = bound.binding(self._session, outputs)
            self._session.run_with_iobinding(binding)
        except Exception:
            result = self._by_itself(bound)  # the model's own error comes once more
            self._known = None  # it was none: the shapes depend on more than the inputs' shapes
            return result
        if not self._checked:
            if not _wrote(binding, outputs.values()):
                self._known = None
                return self._by_itself(bound)
            self._checked = True
        return outputs

    def _by_itself(self, bound):
        """The outputs in memory of onnxruntime's choice."""
        if not self._extended:
            return dict(zip(self._output_names, self._session.run(self._output_names, bound.inputs)))
        # session.run takes and gives only what numpy has.
        binding = _with_inputs(self._session, bound.inputs)
        for name in self._output_names:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        values = zip(self._output_names, binding.get_outputs(), self._output_dtypes)
        return {name: _copied(value, dtype) for name, value, dtype in values}


class _Bound:
    """Inputs at one place, and the bindings that join them to places of outputs."""

    __slots__ = ("inputs", "shapes", "used", "_bindings")

    def __init__(self, inputs):
        self.inputs = inputs
        self.shapes = tuple([(name, array.shape) for name, array in inputs.items()])
        self.used = False
        self._bindings = {}  # addresses of the outputs -> binding

    def binding(self, session, outputs):
        addresses = tuple([address(array) for array in outputs.values()])
        binding = self._bindings.get(addresses)
        if binding is None:
            binding = _with_inputs(session, self.inputs)
            for place, (name, array) in zip(addresses, outputs.items()):
                binding.bind_output(name, "cpu", 0, _element(array.dtype), array.shape, place)
            if len(self._bindings) >= _BINDINGS_KEPT:
                self._bindings.clear()
            self._bindings[addresses] = binding
        return binding


def _with_inputs(session, inputs):
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, _element(array.dtype), array.shape, address(array))
    return binding


def _texts(name, array):
    """Texts as str objects. onnxruntime would take the ``repr`` of bytes and of any other object, and not all that numpy has for texts."""
    texts = as_objects(array)
    kinds = set(map(type, texts.ravel().tolist()))
    if bytes in kinds:
        try:
            texts = decoded(texts)
        except UnicodeDecodeError as error:
            raise TypeError(
                "input {!r} holds bytes that are no text in UTF-8: {}".format(name, error)
            ) from None
    others = sorted(kind.__name__ for kind in kinds if not issubclass(kind, (str, bytes)))
    if others:
        raise TypeError(
            "input {!r} holds an object of type {}; the model takes texts".format(name, others[0])
        )
    return texts


def _spec(argument):
    kind, _, element = argument.type[:-1].partition("(")
    return {
        "name": argument.name,
        "dtype": DTYPES.get(element) if kind == "tensor" else None,
        # onnxruntime says [] for rank 0, and also where the model does not tell the rank.
        "shape": [_dimension(size) for size in argument.shape] if argument.shape else None,
    }


def _dimension(size):
    """A size, the name of a symbol, or None. Exporters write unknown sizes as -1 or ``"?"`` too."""
    if isinstance(size, str):
        return None if size in ("", "?", "-1") else size
    return None if size is None or size < 0 else size


@functools.lru_cache(maxsize=None)
def _element(dtype):
    """The element type as `bind_input` and `bind_output` take it."""
    kind = wire.extension_name(dtype)
    if kind is not None:
        return ELEMENT_NUMBERS[kind]
    # Versions up to 1.7 know only the C types long long and unsigned long long for these.
    return {"i8": np.longlong, "u8": np.ulonglong}.get(dtype.str[1:], dtype.type)


def _wrote(binding, arrays):
    """Whether what onnxruntime calls its outputs lies in the arrays that were bound."""
    if hasattr(binding, "get_outputs"):
        pairs = zip(binding.get_outputs(), arrays)
        return all(array.size == 0 or value.data_ptr() == address(array) for value, array in pairs)
    return all(
        array.tobytes() == copy.tobytes() for copy, array in zip(binding.copy_outputs_to_cpu(), arrays)
    )


def _copied(value, dtype):
    """An OrtValue's elements, which numpy may have no dtype for."""
    if dtype is None or dtype == "string":
        return value.numpy()
    array = np.empty(value.shape(), dtype_of(dtype))
    ctypes.memmove(address(array), value.data_ptr(), array.nbytes)
    return array


def _version():
    return tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
