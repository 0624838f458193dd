"""How long `opexec.load` takes until the worker is ready, its environment being built already."""

from __future__ import annotations

import opexec
from benchmarks.calls.specs import open_model
from benchmarks.contender import Call, Contender
from benchmarks.workloads import Inputs, Workload


class Load(Contender):
    answers = False

    def setup(self, workload: Workload) -> Call:
        def call(inputs: Inputs) -> opexec.Model:
            return open_model(workload, self.options)

        self.after_call = opexec.Model.close
        return call

    def close(self) -> None:
        pass
