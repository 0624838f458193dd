"""TorchScript models, run by torch.

Inputs become tensors over shared memory; results stay what torch returns, and the worker copies them once. On a GPU they are moved there and
back, which is a copy each.
"""

from __future__ import annotations

import zipfile

import torch

from opexec.workers.platforms import Platform, torch_tensors
from opexec.workers.platforms.arguments import check_options
from opexec.workers.platforms.torch_tensors import VERSION, Bound, argument, unreadable_here
from opexec.workers.platforms.unreadable import first_line


def load(source, options):
    """Load a file that `torch.jit.save` wrote. Options: `device`, ``"cpu"`` or ``"cuda:N"``; `threads`, how many torch uses within one operator.

    Raises ValueError if the file holds no TorchScript, RuntimeError if this version of torch cannot read it.
    """
    check_options("torchscript", options, ("device", "threads"))
    torch_tensors.set_threads(options)
    device = torch_tensors.device_of(options)
    try:
        module = torch.jit.load(source, map_location=device)
    except RuntimeError as error:
        raise _unreadable(source, error) from error
    return Model(module.eval(), device)


class Model(Platform):
    """`arguments` are those of the schema of ``forward``, None where torch does not show it; `lists` the names of those that take lists."""

    framework = "torch"
    version = VERSION

    def __init__(self, module, device):
        self.module = module
        self._device = device
        # torch 1.0 shows no schema. It converts tensors to numbers itself, as every version does, but not to lists.
        schema = getattr(module.forward, "schema", None)
        self.arguments = None if schema is None else schema.arguments[1:]  # without self
        self.lists = {one.name for one in self.arguments or () if "List[" in str(one.type)}
        self._names = [one.name for one in self.arguments or ()]

    def bind(self, args, kwargs):
        names = self._names[: len(args)] + list(range(len(self._names), len(args)))
        positional = [argument(name, array, name in self.lists) for name, array in zip(names, args)]
        named = {name: argument(name, array, name in self.lists) for name, array in kwargs.items()}
        return Bound(positional, named, self._device)

    def run(self, bound, reserve):
        args, kwargs = bound.arguments()
        with torch.no_grad():
            return self.module(*args, **kwargs)


def _unreadable(source, error):
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if any("/code/" in name for name in archive.namelist()):
                return unreadable_here(source, first_line(error))
    return ValueError(
        "{} holds no TorchScript, which is a model together with its code. Make one by torch.jit.script(model).save(path). "
        "For weights alone (a state_dict) or a pickled module, write a factory that builds the model and load "
        "'file.py:factory'".format(source)
    )
