"""The same platform code as in opexec's worker, called in this process: ``python -I in_process.py DESCRIPTOR PARENT``. Python >= 3.7.

Runs in the framework's interpreter, and imports of opexec what a worker imports. A call runs the model on an array that was bound once, as
in a worker, and makes numpy arrays of the result: the least that a call in process can cost. The array begins on 64 bytes, as in
shared memory, which spares some frameworks a copy.

`sides.py` starts it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _by_path(*parts):
    """A module by its file: this interpreter may be older than the package around it."""
    name = os.path.splitext(parts[-1])[0]
    spec = importlib.util.spec_from_file_location(name, os.path.join(ROOT, *parts))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class InProcess:
    """The models that are open, by name."""

    def __init__(self, sampling):
        self._sampling = sampling
        self._overhead_ns = sampling.overhead()
        self._calls = {}

    def open(self, name, model, answer):
        """Load a model and write its answer into the file `answer`, for the other side to compare with."""
        from opexec.workers import platforms
        from opexec.workers.structure import flatten

        loaded = platforms.load(model["platform"], model["source"], model["options"])
        functions = _by_path("benchmarks", "frameworks", "model_functions.py")
        image = _aligned(functions.image(model["shape"]))
        run, bound = loaded.run, loaded.bind([], {model["input"]: image})

        def call(inputs):
            return flatten(run(bound, _reserve))[1]

        self._calls[name] = call
        (array,) = call({})
        np.save(answer, array)
        facts = {
            "framework": loaded.framework,
            "version": loaded.version,
            "python": platform.python_version(),
        }
        return {"facts": dict(facts, numpy=np.__version__)}

    def measure(self, name, plan):
        """Nanoseconds of each call, the cost of timing taken off."""
        samples = self._sampling.sample(self._calls[name], {}, self._sampling.Plan(**plan))
        return {"overhead_ns": self._overhead_ns}, np.maximum(samples - self._overhead_ns, 1)


def _reserve(specs):
    return {name: np.empty(shape, dtype) for name, dtype, shape in specs}


def _aligned(array):
    raw = np.empty(array.nbytes + 64, np.uint8)
    begin = -raw.__array_interface__["data"][0] % 64
    copy = raw[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def main(descriptor, parent):
    _by_path("benchmarks", "processes.py").die_with_parent(parent)
    _by_path("workers", "bootstrap.py").install(ROOT)
    sampling = _by_path("benchmarks", "sampling.py")
    _by_path("benchmarks", "answering.py").serve(descriptor, InProcess(sampling))


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # opexec's folders belong to another interpreter
    main(int(sys.argv[1]), int(sys.argv[2]))
