"""What the torch and the torchscript platform share: tensors over arrays, the device, threads.

Numeric inputs become tensors over the arrays' own memory; texts become str, or nested lists of str.
"""

from __future__ import annotations

import numpy as np
import torch

from opexec.ipc import wire
from opexec.workers.arrays import native
from opexec.workers.platforms.arguments import cuda_index
from opexec.workers.platforms.texts import are_texts
from opexec.workers.platforms.unreadable import ended, unreadable

VERSION = str(torch.__version__)


def version():
    """``(major, minor)`` of torch."""
    return tuple(int(part) for part in VERSION.split("+")[0].split(".")[:2])


def unreadable_here(source, why, advice=""):
    """The error for a file that this torch cannot load; see `unreadable`."""
    return unreadable("torch {}".format(VERSION), source, why, "torch==...", advice=advice)


def device_of(options):
    """The torch device that the option `device` names, checked to be there; the CPU without one."""
    index = cuda_index(options)
    if index is None:
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise RuntimeError(
            "the device {!r} was asked for, and torch {} sees {} CUDA devices{}. Ask for device='cpu', or give the model an "
            "environment whose torch is built for this machine's GPU and driver".format(
                options["device"],
                VERSION,
                count,
                "" if torch.version.cuda else " (it is built for the CPU alone)",
            )
        )
    return torch.device("cuda", index)


def set_threads(options):
    """Let torch compute with as many threads as the option `threads` says, within one operator."""
    if options.get("threads"):
        torch.set_num_threads(options["threads"])


def argument(name, array, listed=False):
    """What a model takes for the input `name`: a tensor over the array's memory, or `Listed` for texts, and for numbers if `listed`.

    Raises TypeError for a dtype that this version of torch lacks.
    """
    kind = wire.extension_name(array.dtype)
    if are_texts(array.dtype) or (listed and kind is None):
        return Listed(array)
    try:
        return _tensor(array, kind)
    except (TypeError, AttributeError) as error:
        raise TypeError(
            "input {!r}: torch {} makes no tensor of {}: {} Convert it, or give the model an environment with a torch that has "
            "the dtype".format(name, VERSION, kind or array.dtype, ended(error))
        ) from error


class Listed:
    """An input that the model takes as Python objects: a text, a list of texts or of numbers."""

    def __init__(self, array):
        self.array = array


class Bound:
    """The arguments of a call. What is no tensor over the inputs' memory on the model's own device is made anew for each run."""

    def __init__(self, args, kwargs, device):
        self._args = args
        self._kwargs = kwargs
        self._device = None if device.type == "cpu" else device
        values = args + list(kwargs.values())
        self._as_they_are = self._device is None and all(type(value) is not Listed for value in values)

    def arguments(self):
        if self._as_they_are:
            return self._args, self._kwargs
        return [self._value(one) for one in self._args], {
            name: self._value(one) for name, one in self._kwargs.items()
        }

    def _value(self, given):
        if type(given) is Listed:
            return given.array.tolist()
        return given if self._device is None else given.to(self._device)


def _tensor(array, kind):
    array = native(array)
    if kind is not None:
        # numpy has no such dtype, so the bits are handed over as integers.
        dtype = getattr(torch, kind)
        return _over(array.view(np.int16 if array.itemsize == 2 else np.uint8)).view(dtype)
    return _over(array)


def _over(array):
    """A tensor over an array's memory, without torch's warning about read-only arrays."""
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


class _Writable:
    def __init__(self, array):
        self._array = array  # keeps the memory
        interface = array.__array_interface__
        self.__array_interface__ = dict(interface, data=(interface["data"][0], False))
