"""`torch.jit.load`, of a module in a worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from opexec.calling.arrays import kind_of

from ..face import Face
from ..face import load as load_model
from ..original import forwarding

__all__ = ["ScriptModule", "load"]

__getattr__ = forwarding(__name__, "torch.jit", ", ".join(__all__))


def load(
    f: str | os.PathLike[str] | IO[bytes],
    map_location: Any = None,
    _extra_files: None = None,
    *,
    env: Any = None,
    **options: Any,
) -> ScriptModule:
    """Load a TorchScript file, or an open one. `map_location`: the device, as for torch. `env` and further keywords: see `opexec.load`."""
    if _extra_files:
        raise ValueError("_extra_files cannot be filled from a module in another process; leave it out")
    device = "cpu" if map_location is None else str(map_location)
    if device != "cpu":
        options["device"] = device
    model, _ = load_model(f, ".pt", platform="torchscript", env=env, **options)
    return ScriptModule(model, device)


class ScriptModule(Face):
    """As a loaded `torch.jit.ScriptModule`, for inference alone: no gradients, no parameters, `eval()` is what it is.

    Where tensors go in tensors come out, over shared memory; where numpy arrays go in, numpy arrays. Python's numbers, texts and flat lists
    of them are taken beside either.
    """

    training = False

    def __init__(self, model: Any, device: str = "cpu") -> None:
        super().__init__(model)
        self._device = device

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        values = [*args, *kwargs.values()]
        if not any(isinstance(value, _PYTHON) for value in values):
            return self.opexec_model(*args, **kwargs)
        kind = kind_of([value for value in values if not isinstance(value, _PYTHON)])
        result = self.opexec_model(
            *map(_array, args), **{name: _array(value) for name, value in kwargs.items()}
        )
        return result if kind is None else _converted(result, kind.from_numpy)

    forward = __call__

    def eval(self) -> ScriptModule:
        return self

    def train(self, mode: bool = True) -> ScriptModule:
        if mode:
            raise ValueError(
                "a module in another process is for inference; train() can only be called with False"
            )
        return self

    def to(self, *args: Any, **kwargs: Any) -> ScriptModule:
        """Only where it is: a module is moved by loading it with another `map_location`."""
        for place in (*args, *kwargs.values()):
            if str(place) != self._device:  # a torch.device says what it is called
                raise ValueError(
                    f"a module in another process stays what it is and on {self._device}; to({place!r}) cannot be done. "
                    "Load it with map_location= for another device"
                )
        return self

    def cpu(self) -> ScriptModule:
        return self.to("cpu")


_PYTHON = (bool, int, float, str, list, tuple)


def _array(value: Any) -> Any:
    """A Python value as an array of TorchScript's types: int64, float64, bool, text."""
    if not isinstance(value, _PYTHON):
        return value
    flat = value if isinstance(value, list | tuple) else [value]
    kinds = {type(one) for one in flat}
    if kinds <= {str}:
        array = np.empty(len(flat), object)
        array[:] = flat
    elif kinds <= {bool} or kinds <= {int} or kinds <= {int, float}:
        array = np.array(flat, np.float64 if float in kinds else np.bool_ if bool in kinds else np.int64)
    else:
        raise TypeError(
            f"expected tensors, arrays, numbers, texts, or flat lists of numbers or texts; got {type(value).__name__} with "
            f"{', '.join(sorted(kind.__name__ for kind in kinds))}"
        )
    return array if isinstance(value, list | tuple) else array.reshape(())


def _converted(result: Any, convert: Callable[[np.ndarray], Any]) -> Any:
    """The model's result with every array in it converted."""
    if isinstance(result, np.ndarray):
        return convert(result)
    if isinstance(result, dict):
        return {key: _converted(value, convert) for key, value in result.items()}
    if isinstance(result, list):
        return [_converted(value, convert) for value in result]
    if isinstance(result, tuple):
        values = [_converted(value, convert) for value in result]
        return type(result)(*values) if hasattr(result, "_fields") else tuple(values)
    return result
