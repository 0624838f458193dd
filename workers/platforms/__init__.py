"""One module a framework: each loads a model and runs it on arrays that lie in shared memory.

A platform module is called like the platform (``"onnx"`` -> ``onnx.py``) and has one function, ``load(source, options)``, which returns
an object with the attributes and methods of `Platform`. It runs in the worker's interpreter, or in the caller's own for
``isolation="none"``: the same code serves both, so both give the same results.

Others than opexec's own are registered by a package that is installed where the model runs, by an entry point of the group
``opexec.platforms`` whose name is the platform's and whose value is such a module; or they are named as what they are, ``"package.module"``.
"""

from __future__ import annotations

import importlib
import sys

#: opexec's own -> the package whose absence keeps it from working there; None if the module says that better itself.
PLATFORMS = {
    "python": None,
    "onnx": "onnxruntime",
    "torch": "torch",
    "torchscript": "torch",
    "tensorflow": "tensorflow",
    "keras": None,
    "jax": "jax",
    "sklearn": None,
    "caffe2": None,
    "tensorrt": None,
}

#: Those that run a user's file, and take the option `in_process`: see `python`.
WITH_FACTORIES = frozenset({"python", "torch", "jax", "keras"})

#: Those that have no option `threads`: what a Python model computes with is its own affair, and an engine of TensorRT computes on a GPU.
WITHOUT_THREADS = frozenset({"python", "tensorrt"})


class Platform:
    """What a platform's `load` returns.

    `framework` and `version` name what runs the model (``"onnxruntime"``, ``"1.14.1"``). `inputs` and `outputs` are lists of
    ``{"name": str, "dtype": str, "shape": [int | str | None, ...] | None}`` if the model's file carries its spec, else None; an input that
    a call may leave out has ``"optional": True`` too.
    `aligned`: whether the framework looks at an input where it lies only if that begins on 64 bytes. The caller then copies a slice of an array
    from `Model.empty` that begins elsewhere, as it copies any other array, and counts it.
    """

    framework = ""
    version = ""
    inputs: list | None = None
    outputs: list | None = None
    aligned = False

    def bind(self, args, kwargs):
        """Prepare arrays for `run`, without copying their elements; returns whatever `run` takes.

        `args` is a list of arrays passed by position, `kwargs` maps names to arrays. Called once for each place in shared memory
        and reused for every later call whose tensors lie there: a bound object must look at the arrays' memory again on each run.
        """
        raise TypeError("a platform must define bind()")

    def run(self, bound, reserve):
        """Run the model once; returns its result.

        The result is an array, a number, a string, None, or a tuple, list or dict of them, nested at will; arrays are numpy
        arrays of any layout, which are copied once into shared memory. ``reserve(specs)``, with `specs` a tuple of
        ``(name, dtype, shape)``, gives a dict of uninitialised C-contiguous arrays that already lie there (64-byte aligned): a platform
        that can write into given memory fills them and returns that very dict, and nothing is copied.
        """
        raise TypeError("a platform must define run()")


def load(platform, source, options):
    """Load `source` (a path, or ``"file.py:factory"``) with the named platform; `options` are the platform's own settings.

    Raises ValueError for a name that nothing here has, ImportError if the platform's framework is not installed here, TypeError if what is
    registered is no platform, and whatever the platform raises.
    """
    if platform in PLATFORMS:
        return own(platform, platform).load(source, options)
    return _registered(platform).load(source, options)


def own(module, platform):
    """A module of this package that belongs to a platform. Raises ImportError, saying so, if the platform's framework is not installed."""
    try:
        return importlib.import_module("opexec.workers.platforms." + module)
    except ModuleNotFoundError as error:
        package = PLATFORMS.get(platform)
        if package is None or error.name != package:
            raise
        raise ModuleNotFoundError(
            "the {} platform needs {}, which {} does not have: add it to the model's environment, as in "
            "Environment(requirements=[{!r}])".format(platform, package, sys.executable, package),
            name=package,
        ) from None


def _registered(platform):
    """The module of a platform that is not opexec's own."""
    from opexec.workers import entry_points

    found = entry_points.of_group("opexec.platforms")
    place = found.get(platform)
    if place is None:
        if "." not in platform:
            raise ValueError(
                "the platform {!r} is not known in {}. opexec has {}; registered there: {}. Register one by an entry point of the "
                "group 'opexec.platforms' in a package of the model's environment, or name its module: 'package.module'".format(
                    platform, sys.executable, ", ".join(PLATFORMS), ", ".join(sorted(found)) or "none"
                )
            )
        place = platform
    module, _, attribute = place.partition(":")
    try:
        loader = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise  # something that the module itself imports
        raise ModuleNotFoundError(
            "the platform {!r} is the module {!r}, which {} does not have: install it in the model's environment".format(
                platform, module, sys.executable
            ),
            name=error.name,
        ) from None
    for part in attribute.split(".") if attribute else ():
        loader = getattr(loader, part)
    if not callable(getattr(loader, "load", None)):
        raise TypeError(
            "the platform {!r} is {!r}, which has no function load(source, options); opexec.workers.platforms says what a "
            "platform has".format(platform, place)
        )
    return loader
