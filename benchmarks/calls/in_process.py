"""`Model.infer` with `isolation="none"`: the same checks and the same platform code, in the calling process."""

from __future__ import annotations

from benchmarks.calls.specs import open_model
from benchmarks.contender import Call, Contender
from benchmarks.workloads import Array, Inputs, Workload


class InProcess(Contender):
    def setup(self, workload: Workload) -> Call:
        self._model = open_model(workload, self.options, isolation="none")
        infer = self._model.infer

        def call(inputs: Inputs) -> Array:
            return infer(inputs)["y"]

        return call

    def close(self) -> None:
        self._model.close()
