"""Python packages: ``entrypoint(data_path)`` makes the model, which takes numpy arrays by name and returns a dict of them."""

from __future__ import annotations

import inspect
import os
import platform
import sys

import numpy as np

from opexec.workers.platforms import Platform, package_code
from opexec.workers.platforms.arguments import check_options
from opexec.workers.platforms.packaged import by_name, text_array, texts_of


def load(contents):
    """Import the entry point, from code that is a package of its own, and let it make the model. There are no options.

    `device`, which `opexec.load` gives, is the model's own affair: in a worker it sees that GPU alone.
    """
    check_options("python", contents.known_options(), ("device",), factory=True)
    return Model(made(contents), contents)


def made(contents):
    """What the package's entry point returned for its data path. Raises AttributeError, TypeError and whatever the code raises."""
    package_code.add_ops(os.path.join(contents.folder, "0", "ops"), contents.custom_ops)
    code = package_code.Code(contents.code)
    if not contents.options.get("in_process") and contents.code not in sys.path:
        sys.path.append(contents.code)  # last: for pickles, which name modules without their package
    place, name = contents.settings["entrypoint_package"], contents.settings["entrypoint"]
    module = code.module(place)
    entry = getattr(module, name, None)
    if not callable(entry):
        raise AttributeError("{} in the package's 0/code has no function {!r}".format(place, name))
    model = entry(contents.data)
    if not callable(model):
        raise TypeError(
            "{}:{} returned an object of type {}; expected a callable that takes the inputs as keywords".format(
                place, name, type(model).__name__
            )
        )
    return model


class Model(Platform):
    framework = "python"
    version = platform.python_version()

    def __init__(self, call, contents):
        self._call = call
        self._specs = contents.inputs
        self._texts = texts_of(contents.outputs)
        self.optional = _optional(call, [spec["name"] for spec in contents.inputs])

    def bind(self, args, kwargs):
        given = by_name(self._specs, args, kwargs)
        return {
            name: array.astype(str) if array.dtype.kind in "OT" and _are_texts(array) else array
            for name, array in given.items()
        }

    def run(self, bound, reserve):
        result = self._call(**bound)
        if not isinstance(result, dict):
            raise TypeError(
                "the model returned an object of type {}; expected a dict of numpy arrays".format(
                    type(result).__name__
                )
            )
        for name, value in result.items():
            if not isinstance(value, np.ndarray):
                raise TypeError(
                    "output {!r} is of type {}.{}; expected a numpy array: convert it in the package's code".format(
                        name, type(value).__module__, type(value).__name__
                    )
                )
        if self._texts:
            return {
                name: text_array(value) if name in self._texts else value for name, value in result.items()
            }
        return result


def _optional(call, names):
    """Those of the inputs that a call of the model may do without; what takes any keywords asks for what it needs itself."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):  # some callables written in C do not tell
        return frozenset()
    any_name = any(one.kind is one.VAR_KEYWORD for one in parameters)
    required = {one.name for one in parameters if one.default is one.empty}
    with_defaults = {one.name for one in parameters} - required
    return frozenset(names) - required if any_name else frozenset(with_defaults)


def _are_texts(array):
    return not any(isinstance(one, bytes) for one in array.reshape(-1))
