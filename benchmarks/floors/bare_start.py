"""B: how long the worker's interpreter takes to start and to import the model's framework, without opexec."""

from __future__ import annotations

import subprocess

from benchmarks.calls.specs import open_model
from benchmarks.contender import Call, Contender
from benchmarks.workloads import Inputs, Workload

_SCRIPT = "import os, numpy; os.write(1, b'!')"


class BareStart(Contender):
    """The framework of the `python` platform's models here is numpy. Counted until the import is done."""

    answers = False

    def setup(self, workload: Workload) -> Call:
        with open_model(workload, self.options) as model:
            interpreter = model.workers[0].interpreter

        def call(inputs: Inputs) -> subprocess.Popen[bytes]:
            child = subprocess.Popen([interpreter, "-I", "-c", _SCRIPT], stdout=subprocess.PIPE)
            assert child.stdout is not None
            if child.stdout.read(1) != b"!":
                raise RuntimeError(f"{interpreter} could not import numpy")
            return child

        self.after_call = _reap
        return call

    def close(self) -> None:
        pass


def _reap(child: subprocess.Popen[bytes]) -> None:
    child.communicate()
