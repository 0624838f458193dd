"""The model called as the Python function that it is."""

from __future__ import annotations

from benchmarks.contender import Call, Contender
from benchmarks.workloads import Array, Inputs, Workload


class Plain(Contender):
    def setup(self, workload: Workload) -> Call:
        model = workload.load()

        def call(inputs: Inputs) -> Array:
            return model(**inputs)["y"]

        return call

    def close(self) -> None:
        pass
