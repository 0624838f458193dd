"""torch models: a factory that makes one, with weights from a file, or a file of torch.export.

Inputs become tensors over shared memory; results stay what torch returns, and the worker copies them once.
On a GPU they are moved there and back, which is a copy each.
"""

from __future__ import annotations

import os

import torch

from opexec.workers.platforms import Platform, torch_tensors
from opexec.workers.platforms.arguments import check_options
from opexec.workers.platforms.python import is_factory, made
from opexec.workers.platforms.torch_tensors import VERSION, Bound, argument, unreadable_here
from opexec.workers.platforms.unreadable import with_kind

EXPORT_SINCE = (2, 1)


def load(source, options):
    """Load ``"file.py:factory"`` or ``"package.module:factory"``, or a file that `torch.export.save` wrote (``.pt2``).

    The factory returns a `torch.nn.Module` or another callable that takes tensors. Options: `state_dict`, the path of a file with
    the module's weights, as `torch.save` writes them (read with ``weights_only`` where torch has that) or as safetensors;
    `device`, ``"cpu"`` or ``"cuda:N"``; `threads`, how many torch uses within one operator.

    Raises RuntimeError for a file that this torch cannot read or weights that do not fit, FileNotFoundError, ValueError for options
    that do not fit, and whatever the factory raises.
    """
    check_options("torch", options, ("state_dict", "device", "threads"), factory=True)
    torch_tensors.set_threads(options)
    device = torch_tensors.device_of(options)
    weights = options.get("state_dict")
    if not is_factory(source):
        if weights is not None:
            raise ValueError(
                "the option state_dict is for a factory; {} has weights of its own".format(source)
            )
        if torch_tensors.version() < EXPORT_SINCE:
            raise unreadable_here(source, "torch.export came with torch {}.{}".format(*EXPORT_SINCE))
        from opexec.workers.platforms.torch_export import Exported

        return Exported(source, device)
    model = made(source, options)
    is_module = isinstance(model, torch.nn.Module)
    if weights is not None:
        if not is_module:
            raise TypeError(
                "the option state_dict was given, and {} returned an object of type {}; expected a torch.nn.Module, which can "
                "take weights".format(source, type(model).__name__)
            )
        path = os.path.abspath(os.path.expanduser(weights))
        _take(model, _weights(path), path)
    if is_module:
        # A module may have parts on another device already, whatever the factory did.
        model = model.to(device).eval()
    return Model(model, device)


class Model(Platform):
    framework = "torch"
    version = VERSION

    def __init__(self, call, device):
        self._call = call
        self._device = device

    def bind(self, args, kwargs):
        positional = [argument(place, array) for place, array in enumerate(args)]
        named = {name: argument(name, array) for name, array in kwargs.items()}
        return Bound(positional, named, self._device)

    def run(self, bound, reserve):
        args, kwargs = bound.arguments()
        with torch.no_grad():
            return self._call(*args, **kwargs)


def _weights(path):
    """The state_dict in a file, on the CPU."""
    if not os.path.isfile(path):
        raise FileNotFoundError("no such file of weights: {}".format(path))
    try:
        if path.endswith(".safetensors") or _is_safetensors(path):
            return _safetensors(path)
        if torch_tensors.version() >= (1, 13):
            found = torch.load(path, map_location="cpu", weights_only=True)
        else:
            found = torch.load(path, map_location="cpu")
    except Exception as error:  # of the unpickler, of zipfile, of torch and of safetensors
        advice = "Weights are what torch.save(model.state_dict(), path) writes."
        raise unreadable_here("the weights in " + path, with_kind(error, error), advice) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]  # a checkpoint, with an optimiser's state and such beside it
    if not isinstance(found, dict):
        raise TypeError(
            "{} holds an object of type {}; expected a state_dict: save model.state_dict(), not the model".format(
                path, type(found).__name__
            )
        )
    return found


def _is_safetensors(path):
    """Whether a file begins as one of safetensors does, and none of `torch.save`: with the length of the JSON that follows."""
    with open(path, "rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= os.path.getsize(path) - 8


def _safetensors(path):
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise ImportError(
            "{} holds safetensors, which need the package safetensors in the environment".format(path)
        ) from None
    return load_file(path)


def _take(module, weights, path):
    try:
        module.load_state_dict(weights)
    except Exception as error:
        raise RuntimeError(
            "the weights in {} do not fit the {} that the factory made (torch {}): {}".format(
                path, type(module).__name__, VERSION, error
            )
        ) from error
