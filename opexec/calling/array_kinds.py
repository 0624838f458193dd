"""The kinds of array that come back as what went in: torch's, TensorFlow's, jax's and cupy's.

`kind_of` finds the one kind that all inputs of a call are, and its `from_numpy` gives the outputs in that kind, over their own memory.
Where a framework takes its arrays to be immutable that holds, because nobody else is given that memory. Frameworks are looked up among
the modules that the caller has imported, and never imported from here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from ..errors import SpecError
from ..ipc import wire
from ..ipc.wire import is_text
from ..workers.arrays import address


class ArrayKind(Protocol):
    """One framework's arrays: how to know them, and how to make them from numpy's and back.

    A framework is added as a small class of this form, in `_KINDS`.
    """

    #: What users call it: ``"torch"``.
    name: str

    def owns(self, value: object) -> bool:
        """Whether `value` is an array of this kind; False while the framework is not imported."""

    def to_numpy(self, value: Any, name: str) -> np.ndarray[Any, Any] | None:
        """The numpy array of `value`, which is of this kind. None leaves it to what all arrays have in common (`as_array`)."""

    def from_numpy(self, array: np.ndarray[Any, Any]) -> Any:
        """An array of this kind over the memory of `array`, which it keeps alive.

        An array of a dtype that the framework lacks (dates, structures, ...) is returned as it is, as numpy's.
        """


class _Torch:
    name = "torch"

    def owns(self, value: object) -> bool:
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))

    def to_numpy(self, value: Any, name: str) -> np.ndarray[Any, Any] | None:
        if value.device.type != "cpu":
            raise SpecError(
                f"input {name!r} lies on the device {str(value.device)!r}, not in host memory; pass tensor.cpu()"
            )
        return None

    def from_numpy(self, array: np.ndarray[Any, Any]) -> Any:
        torch: Any = sys.modules["torch"]
        extension = wire.extension_name(array.dtype)
        dtype = getattr(torch, extension or array.dtype.name, None)
        if not isinstance(dtype, torch.dtype):
            return array
        if extension is None:
            return torch.from_numpy(array)
        # torch reads these from no numpy array, so the bits go over as integers. (What it calls int4 and so on is laid out otherwise.)
        if extension == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(dtype)
        return torch.from_numpy(array.view(np.uint8)).view(dtype) if extension.startswith("float8") else array


class _TensorFlow:
    """Eager tensors. TensorFlow takes them to be immutable, and so is the memory of an output that only a tensor looks at."""

    name = "tensorflow"

    def owns(self, value: object) -> bool:
        tensorflow = sys.modules.get("tensorflow")
        # A tensor of a graph has no values, and so no numpy().
        return (
            tensorflow is not None
            and isinstance(value, (getattr(tensorflow, "Tensor", ()), getattr(tensorflow, "Variable", ())))
            and hasattr(value, "numpy")
        )

    def to_numpy(self, value: Any, name: str) -> np.ndarray[Any, Any] | None:
        tensorflow: Any = sys.modules["tensorflow"]
        if isinstance(value, tensorflow.Variable):
            value = value.read_value()
        device = getattr(value, "backing_device", "") or ""
        if device and "CPU:" not in device:
            raise SpecError(
                f"input {name!r} lies on the device {device!r}, not in host memory; copy it there: "
                "with tf.device('CPU:0'): tensor = tf.identity(tensor)"
            )
        if value.dtype in (tensorflow.resource, tensorflow.variant):
            raise SpecError(f"input {name!r} is a tensor of {value.dtype.name}, which holds no values")
        if value.dtype == tensorflow.string:
            return np.array(value.numpy(), object)
        # The buffer protocol gives the tensor's own memory, read-only; numpy() would copy it. It knows no bfloat16 and the like, whose bits
        # are looked at as integers.
        dtype = np.dtype(value.dtype.as_numpy_dtype)
        if wire.extension_name(dtype) is None:
            return np.asarray(memoryview(value))
        if dtype.name != "bfloat16":
            return value.numpy()  # type: ignore[no-any-return]  # a copy: TensorFlow shows these bits in no other way
        return np.asarray(memoryview(tensorflow.bitcast(value, tensorflow.uint16))).view(dtype)

    def from_numpy(self, array: np.ndarray[Any, Any]) -> Any:
        tensorflow: Any = sys.modules["tensorflow"]
        extension = wire.extension_name(array.dtype)
        if is_text(array.dtype):
            return tensorflow.constant(array, tensorflow.string)
        dtype = getattr(tensorflow, extension or array.dtype.name, None)
        if not isinstance(dtype, tensorflow.DType) or array.dtype.names is not None:
            return array
        if extension is not None:
            if extension != "bfloat16":
                return tensorflow.constant(array)
            return tensorflow.bitcast(self._over(tensorflow, array.view(np.int16)), dtype)
        return self._over(tensorflow, array)

    def _over(self, tensorflow: Any, array: np.ndarray[Any, Any]) -> Any:
        aligned = array.flags.c_contiguous and array.flags.writeable and address(array) % wire.ALIGNMENT == 0
        if not aligned or not array.size:
            return tensorflow.constant(array)  # which copies; unaligned memory would end the process
        return tensorflow.experimental.dlpack.from_dlpack(array.__dlpack__())


class _Jax:
    """jax's arrays are immutable, and so is the memory of an output that only such an array looks at."""

    name = "jax"

    def owns(self, value: object) -> bool:
        jax = sys.modules.get("jax")
        return jax is not None and isinstance(value, getattr(jax, "Array", ()))

    def to_numpy(self, value: Any, name: str) -> np.ndarray[Any, Any] | None:
        jax: Any = sys.modules["jax"]
        if isinstance(value, jax.core.Tracer):
            raise SpecError(
                f"input {name!r} is being traced by jax (in jit, grad or vmap), and has no values yet; call the model outside, or by "
                "jax.pure_callback"
            )
        elsewhere = sorted({device.platform for device in value.devices()} - {"cpu"})
        if elsewhere:
            raise SpecError(
                f"input {name!r} lies on a device ({', '.join(elsewhere)}), not in host memory; pass jax.device_get(array)"
            )
        return None

    def from_numpy(self, array: np.ndarray[Any, Any]) -> Any:
        jax: Any = sys.modules["jax"]
        try:
            # Without jax_enable_x64 jax makes 32 bits of 64, and nobody asked for that.
            if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
                return array
            return jax.device_put(array, jax.devices("cpu")[0])
        except TypeError:  # dates, texts, structures
            return array


class _Cupy:
    """Arrays on a GPU, always: they are copied to host memory and back, because there is no other form of them to ask the caller for."""

    name = "cupy"

    def owns(self, value: object) -> bool:
        cupy = sys.modules.get("cupy")
        return cupy is not None and isinstance(value, getattr(cupy, "ndarray", ()))

    def to_numpy(self, value: Any, name: str) -> np.ndarray[Any, Any] | None:
        return sys.modules["cupy"].asnumpy(value)  # type: ignore[no-any-return]

    def from_numpy(self, array: np.ndarray[Any, Any]) -> Any:
        if array.dtype.kind not in "biufc" or wire.extension_name(array.dtype) is not None:
            return array
        return sys.modules["cupy"].asarray(array)


_KINDS: tuple[ArrayKind, ...] = (_Torch(), _TensorFlow(), _Jax(), _Cupy())


def of(value: object) -> ArrayKind | None:
    """The kind of array that `value` is; None for numpy's, and for what is none of these."""
    for kind in _KINDS:
        if kind.owns(value):
            return kind
    return None


def kind_of(values: Iterable[object]) -> ArrayKind | None:
    """The kind of array that all `values` are; None for numpy arrays, a mixture, Python values or no values at all."""
    values = list(values)
    for kind in _KINDS:
        if values and all(map(kind.owns, values)):
            return kind
    return None
