"""TorchScript models, run by torch on the CPU.

Numeric inputs become tensors over the arrays' own memory; texts become str, or nested lists of str. Results stay what torch returns:
`workers.structure` takes tensors.
"""

from __future__ import annotations

import zipfile

import numpy as np
import torch

from opexec.ipc import wire
from opexec.workers.arrays import native
from opexec.workers.platforms import Platform


def load(source, options):
    """Load a file that `torch.jit.save` wrote. Options: `threads`, how many torch uses within one operator.

    Raises ValueError if the file holds no TorchScript, RuntimeError if this version of torch cannot read it.
    """
    unknown = set(options) - {"threads"}
    if unknown:
        raise ValueError("the torchscript platform knows no option {!r}".format(sorted(unknown)[0]))
    if options.get("threads"):
        torch.set_num_threads(options["threads"])
    try:
        module = torch.jit.load(source, map_location="cpu")
    except RuntimeError as error:
        raise _unreadable(source, error) from error
    return Model(module.eval())


class Model(Platform):
    framework = "torch"
    version = str(torch.__version__)

    def __init__(self, module):
        self._module = module
        # torch 1.0 shows no schema. It converts tensors to numbers itself, as every version does, but not to lists.
        schema = getattr(module.forward, "schema", None)
        arguments = schema.arguments[1:] if schema is not None else []  # without self
        self._names = [argument.name for argument in arguments]
        self._lists = {argument.name for argument in arguments if "List[" in str(argument.type)}

    def bind(self, args, kwargs):
        names = self._names[: len(args)] + list(range(len(self._names), len(args)))
        positional = [self._argument(name, array) for name, array in zip(names, args)]
        return _Bound(positional, {name: self._argument(name, array) for name, array in kwargs.items()})

    def run(self, bound, reserve):
        args, kwargs = bound.arguments()
        with torch.no_grad():
            return self._module(*args, **kwargs)

    def _argument(self, name, array):
        kind = wire.extension_name(array.dtype)
        if array.dtype.kind in "OUST" or (name in self._lists and kind is None):
            return _Listed(array)
        try:
            return _tensor(array, kind)
        except (TypeError, AttributeError) as error:
            raise TypeError(
                "input {!r}: torch {} makes no tensor of {}: {}".format(
                    name, torch.__version__, kind or array.dtype, error
                )
            ) from error


class _Bound:
    """The arguments of a call; those that are no tensors over the inputs' memory are made anew for each run."""

    def __init__(self, args, kwargs):
        self._args = args
        self._kwargs = kwargs
        self._listed = any(type(value) is _Listed for value in args + list(kwargs.values()))

    def arguments(self):
        if not self._listed:
            return self._args, self._kwargs
        return [_value(one) for one in self._args], {name: _value(one) for name, one in self._kwargs.items()}


class _Listed:
    """An input that forward takes as Python objects: a text, a list of texts or of numbers."""

    def __init__(self, array):
        self.array = array


def _value(argument):
    return argument.array.tolist() if type(argument) is _Listed else argument


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


def _unreadable(source, error):
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if any("/code/" in name for name in archive.namelist()):
                return RuntimeError(
                    "torch {} cannot read the TorchScript in {}: {} If another version wrote it, give the model an environment "
                    "that has it: Environment(requirements=['torch==...'])".format(
                        torch.__version__, source, str(error).strip().partition("\n")[0]
                    )
                )
    return ValueError(
        "{} holds no TorchScript, which is a model together with its code. Make one by torch.jit.script(model).save(path). "
        "For weights alone (a state_dict) or a pickled module, write a factory that builds the model and load "
        "'file.py:factory'".format(source)
    )
