"""One module a framework: each loads a model and runs it on arrays that lie in shared memory.

A platform module is called like the platform (``"onnx"`` -> ``onnx.py``) and has one function, ``load(source, options)``, which returns
an object with the attributes and methods of `Platform`. It runs in the worker's interpreter, or in the caller's own for
``isolation="none"``: the same code serves both, so both give the same results.
"""

from __future__ import annotations

import importlib

PLATFORMS = ("python", "onnx", "torchscript")


class Platform:
    """What a platform's `load` returns.

    `framework` and `version` name what runs the model (``"onnxruntime"``, ``"1.14.1"``). `inputs` and `outputs` are lists of
    ``{"name": str, "dtype": str, "shape": [int | str | None, ...] | None}`` if the model's file carries its spec, else None.
    """

    framework = ""
    version = ""
    inputs: list | None = None
    outputs: list | None = None

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
    """Load `source` (a path, or ``"file.py:factory"``) with the named platform; `options` are the platform's own settings."""
    if platform not in PLATFORMS:
        raise ValueError(
            "the platform {!r} is not known here; expected one of {}".format(platform, ", ".join(PLATFORMS))
        )
    return importlib.import_module("opexec.workers.platforms." + platform).load(source, options)
