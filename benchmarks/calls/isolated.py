"""`Model.infer` with specs on, against a worker of another Python version."""

from __future__ import annotations

import numpy as np

import opexec
from benchmarks.calls.specs import open_model
from benchmarks.contender import Call, Contender, Stream
from benchmarks.workloads import Array, Inputs, Workload


class Isolated(Contender):
    """The input is a plain numpy array: opexec copies it once."""

    def setup(self, workload: Workload) -> Call:
        self._model = open_model(workload, self.options)
        infer = self._model.infer

        def call(inputs: Inputs) -> Array:
            return infer(inputs)["y"]

        return call

    def stream(self) -> Stream:
        return self._model.submit, lambda future: future.result()["y"]

    def facts(self) -> dict[str, str]:
        worker = self._model.workers[0]
        return {"version": opexec.__version__, "worker Python": worker.python, "worker numpy": worker.numpy}

    def close(self) -> None:
        self._model.close()


class FromEmpty(Isolated):
    """The input was made by `Model.empty`: it lies in shared memory already."""

    def inputs(self, workload: Workload) -> Inputs:
        made = {}
        for name, array in workload.inputs().items():
            made[name] = self._model.empty(name, array.shape)
            np.copyto(made[name], array)
        return made


class SliceOfEmpty(Isolated):
    """The input is a slice of what `Model.empty` made: eight more elements before it and after it."""

    margin = 8

    def inputs(self, workload: Workload) -> Inputs:
        array = workload.inputs()["x"]
        room = self._model.empty("x", (array.size + 2 * self.margin,))
        made = room[self.margin : -self.margin]
        np.copyto(made, array)
        return {"x": made}
