"""The call through opexec: the public `Model.infer` on a plain numpy array, which is copied once into shared memory.

Runs in the calling interpreter, in a process of its own: ``python -m benchmarks.frameworks.isolated DESCRIPTOR PARENT``; `sides.py` starts it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import opexec
from benchmarks import answering, processes, sampling
from benchmarks.frameworks.model_functions import image
from benchmarks.workloads import Inputs

TOLERANCE = 1e-5
"""Of the largest number in the answer: the framework may compute with other instructions for memory that lies elsewhere."""


class Isolated:
    """The models that are open, by name."""

    def __init__(self) -> None:
        self._overhead_ns = sampling.overhead()
        self._models: dict[str, opexec.Model] = {}
        self._calls: dict[str, Any] = {}
        self._inputs: dict[str, Inputs] = {}

    def open(
        self,
        name: str,
        model: dict[str, Any],
        answer: str,
        interpreter: str,
        env_vars: dict[str, str],
        threads: int,
    ) -> dict[str, Any]:
        """Load a model, compare what it answers with the file `answer`, and count what is copied."""
        loaded = opexec.load(
            model["source"],
            env=interpreter,
            platform=model["platform"],
            options={key: value for key, value in model["options"].items() if key != "threads"},
            env_vars=env_vars,
            threads=threads,
        )
        self._models[name] = loaded
        infer = loaded.infer
        x = image(model["shape"])
        self._inputs[name] = {model["input"]: x}

        def call(inputs: Inputs) -> Any:
            return infer(inputs)

        self._calls[name] = call
        expected = np.load(answer)
        (got,) = call(self._inputs[name]).values()
        if got.dtype != expected.dtype or got.shape != expected.shape:
            raise ValueError(
                f"in process {expected.dtype} {expected.shape} came out, isolated {got.dtype} {got.shape}"
            )
        if not np.allclose(got, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max()):
            raise ValueError("isolated, the model gave other numbers than in process")
        return {"facts": {"input": x.nbytes, "output": got.nbytes, **_copies(loaded, model, x)}}

    def measure(self, name: str, plan: dict[str, Any]) -> tuple[dict[str, Any], sampling.Samples]:
        samples = sampling.sample(self._calls[name], self._inputs[name], sampling.Plan(**plan))
        return {"overhead_ns": self._overhead_ns}, np.maximum(samples - self._overhead_ns, 1)

    def close(self) -> dict[str, Any]:
        self._calls.clear()
        for model in self._models.values():
            model.close()
        self._models.clear()
        return {}


def _copies(model: opexec.Model, about: dict[str, Any], x: np.ndarray) -> dict[str, int]:
    """Bytes that opexec copies in one call: in, of a numpy array and of one from `empty`; and out."""
    shared = model.empty(about["input"], x.shape, x.dtype)
    shared[...] = x
    found = {}
    for name, given in (("copied in of numpy", x), ("copied in of empty", shared)):
        for _ in range(4):  # a place is known from its second call on
            before = model.stats()
            model.infer({about["input"]: given})
            after = model.stats()
        found[name] = after.bytes_copied_in - before.bytes_copied_in
    found["copied out"] = after.bytes_copied_out - before.bytes_copied_out
    return found


def main(descriptor: int, parent: int) -> None:
    processes.die_with_parent(parent)
    isolated = Isolated()
    answering.serve(descriptor, isolated)
    isolated.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
