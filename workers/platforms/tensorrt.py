"""TensorRT engines (``.engine``, ``.plan``), on a CUDA GPU.

Not run anywhere yet: written after the interface of TensorRT 8.5 to 10 (named tensors, ``execute_async_v3``) and of cuda-python, on machines
without a GPU. What is tested is what it says where the library or the GPU is missing.

Inputs are copied from shared memory to the GPU and outputs from the GPU into shared memory, one copy each, with none on the host.
"""

from __future__ import annotations

import os

from opexec.workers.arrays import address, native
from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import check_dtype, check_options, cuda_index, inputs_by_name
from opexec.workers.platforms.dtypes import dtype_of
from opexec.workers.platforms.unreadable import ended, unreadable

#: TensorRT's names of element types -> names of dtypes.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def load(source, options):
    """Load an engine that TensorRT built. Option: `device`, ``"cuda:N"``; the first GPU without one.

    Raises ImportError or RuntimeError that says what is missing: TensorRT, cuda-python, a GPU; and RuntimeError for a file that this
    TensorRT cannot read: engines fit one version and one kind of GPU.
    """
    check_options("tensorrt", options, ("device",))  # it computes with no threads of the CPU
    if options.get("device") == "cpu":
        raise ValueError("the option device is 'cpu'; a TensorRT engine runs on a GPU: expected 'cuda:N'")
    index = cuda_index(options) or 0
    if not os.path.isfile(source):
        raise FileNotFoundError("no such file: {}".format(source))
    tensorrt = _imported("tensorrt", "tensorrt")
    cuda = _Cuda(index)
    return Model(source, tensorrt, cuda)


def _imported(module, package):
    try:
        return __import__(module, fromlist=["_"])
    except ImportError as error:
        raise ImportError(
            "the tensorrt platform needs {} in the model's environment, with CUDA's libraries, and could not import it: {}. "
            "Environment(requirements=['tensorrt', 'cuda-python'])".format(package, error)
        ) from error


class _Cuda:
    """The few calls of CUDA's runtime that are needed, each checked."""

    def __init__(self, index):
        try:
            self._runtime = _imported("cuda.bindings.runtime", "cuda-python")
        except ImportError:
            self._runtime = _imported("cuda.cudart", "cuda-python")  # as cuda-python up to 12.5 called it
        try:
            count = self._call("cudaGetDeviceCount")
        except RuntimeError as error:
            raise RuntimeError(
                "a TensorRT engine needs a CUDA GPU, and none can be used here: {} A worker sees none unless it is "
                "loaded with device='cuda:N'".format(ended(error))
            ) from error
        if index >= count:
            raise RuntimeError(
                "the device 'cuda:{}' was asked for, and CUDA sees {} devices".format(index, count)
            )
        self._call("cudaSetDevice", index)
        self.stream = self._call("cudaStreamCreate")

    def _call(self, name, *args):
        error, *results = getattr(self._runtime, name)(*args)
        if int(error):
            raise RuntimeError("{} failed: {}".format(name, getattr(error, "name", error)))
        return results[0] if results else None

    def allocate(self, size):
        return self._call("cudaMalloc", max(size, 1))

    def free(self, place):
        self._call("cudaFree", place)

    def copy(self, to, source, size, to_device):
        directions = self._runtime.cudaMemcpyKind
        direction = directions.cudaMemcpyHostToDevice if to_device else directions.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", to, source, size, direction, self.stream)

    def wait(self):
        self._call("cudaStreamSynchronize", self.stream)


class Model(Platform):
    framework = "tensorrt"
    inputs: list
    outputs: list

    def __init__(self, source, tensorrt, cuda):
        self.version = tensorrt.__version__
        if tuple(int(part) for part in self.version.split(".")[:2]) < (8, 5):
            raise RuntimeError(
                "TensorRT {} has no named tensors; the tensorrt platform needs 8.5 or later".format(
                    self.version
                )
            )
        self._cuda = cuda
        self._logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        tensorrt.init_libnvinfer_plugins(self._logger, "")
        with open(source, "rb") as file:
            self._engine = tensorrt.Runtime(self._logger).deserialize_cuda_engine(file.read())
        if self._engine is None:
            why = "an engine runs only with the version and on the kind of GPU that it was built for"
            raise unreadable("TensorRT {}".format(self.version), source, why, "tensorrt==...")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        taken = [name for name in names if self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
        self.inputs = [self._spec(name) for name in taken]
        self.outputs = [self._spec(name) for name in names if name not in taken]
        self._memory = {}  # name -> (place on the GPU, bytes)

    def bind(self, args, kwargs):
        names = [spec["name"] for spec in self.inputs]
        arrays = inputs_by_name(names, args, kwargs)
        for spec in self.inputs:
            check_dtype(spec["name"], arrays[spec["name"]].dtype, spec["dtype"])
        return {name: native(array) for name, array in arrays.items()}

    def run(self, bound, reserve):
        for name, array in bound.items():
            if not self._context.set_input_shape(name, array.shape):
                raise ValueError(
                    "input {!r} has the shape {}, which none of the engine's profiles takes".format(
                        name, list(array.shape)
                    )
                )
            place = self._room(name, array.nbytes)
            self._cuda.copy(place, address(array), array.nbytes, to_device=True)
        shapes = [tuple(self._context.get_tensor_shape(spec["name"])) for spec in self.outputs]
        if any(size < 0 for shape in shapes for size in shape):
            raise ValueError("the engine has outputs whose shapes depend on values, which are not supported")
        outputs = reserve(
            tuple(
                [(spec["name"], dtype_of(spec["dtype"]), shape) for spec, shape in zip(self.outputs, shapes)]
            )
        )
        for name, array in outputs.items():
            self._room(name, array.nbytes)
        if not self._context.execute_async_v3(int(self._cuda.stream)):
            raise RuntimeError("TensorRT could not run the engine; what it logged says why")
        for name, array in outputs.items():
            self._cuda.copy(address(array), self._memory[name][0], array.nbytes, to_device=False)
        self._cuda.wait()
        return outputs

    def _room(self, name, size):
        """Memory on the GPU for a tensor; kept, and made anew when it has to be larger."""
        place, has = self._memory.get(name, (None, -1))
        if has < size:
            if place is not None:
                self._cuda.free(place)
            place = self._cuda.allocate(size)
            self._memory[name] = place, size
            self._context.set_tensor_address(name, int(place))
        return place

    def _spec(self, name):
        dtype = DTYPES.get(self._engine.get_tensor_dtype(name).name)
        if dtype is None:
            raise TypeError(
                "tensor {!r} is {}, which cannot be given or taken".format(
                    name, self._engine.get_tensor_dtype(name).name
                )
            )
        shape = [None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name)]
        return {"name": name, "dtype": dtype, "shape": shape}
