"""Arrays of any kind as numpy arrays, and what a framework needs to know of one before it looks at its memory."""

from __future__ import annotations

import sys

import numpy as np

from opexec.ipc import wire


def native(array):
    """The array itself if it is C-contiguous and of the machine's byte order, else a copy that is.

    Arrays over shared memory always are; in the caller's own process an input may be anything.
    """
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # An array of rank 0 is always contiguous, so it never gets here, where it would become one of rank 1.
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def address(array):
    """Where the elements of an array begin, as an int."""
    return array.__array_interface__["data"][0]


def as_array(value):
    """The numpy array of an array-like object, sharing its memory where it can; None if `value` is no array at all.

    Arrays of another kind are numpy's subclasses and scalars, torch tensors (detached, brought to host memory; bfloat16 and
    the float8 kinds keep their bits) and whatever has ``__array__``, ``__array_interface__`` or ``__dlpack__``. Raises TypeError,
    with the reason, for one that cannot become a plain array: masked, sparse, of a dtype that numpy cannot hold, or refused by
    its own library.
    """
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError("a masked array has no plain values: fill it with .filled(value) first")
        return np.asarray(value)
    if isinstance(value, np.str_):
        return text_to_array(value)
    if isinstance(value, np.bytes_):
        return bytes_to_array(value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return _torch_to_numpy(torch, value)
    if isinstance(value, type):
        return None
    try:
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return np.asarray(value)
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
    except Exception as error:  # foreign code may raise anything
        raise TypeError(f"numpy cannot read it: {type(error).__name__}: {error}") from error
    return None


def text_to_array(value):
    # As an object, here and for bytes: numpy's own text dtypes drop trailing NULs.
    array = np.empty((), object)
    array[()] = plain_str(value)
    return array


def bytes_to_array(value):
    array = np.empty((), object)
    array[()] = bytes(value)
    return array


def plain_str(value):
    # Not str(value): what an enum's member says there is its name.
    return str.__str__(value)


def _torch_to_numpy(torch, tensor):
    try:
        return (
            tensor.numpy()
        )  # as most are; of what is no plain array in host memory torch makes none, whatever its version
    except (RuntimeError, TypeError):
        pass
    tensor = tensor.detach()
    if getattr(tensor, "layout", torch.strided) is not torch.strided:
        raise TypeError("a sparse tensor has no plain array: make it dense with .to_dense() first")
    try:
        tensor = tensor.cpu()
        for resolve in ("resolve_conj", "resolve_neg"):
            if hasattr(tensor, resolve):
                tensor = getattr(tensor, resolve)()
        name = str(tensor.dtype).replace("torch.", "")
        if name != "bfloat16" and not name.startswith("float8"):
            return tensor.numpy()
        # numpy has no such dtype of its own, so the bits travel as integers.
        bits = tensor.view(torch.int16 if name == "bfloat16" else torch.uint8)
        return bits.numpy().view(wire.extension_dtype(name))
    except Exception as error:
        raise TypeError(f"torch cannot give {tensor.dtype} on {tensor.device} to numpy: {error}") from error
