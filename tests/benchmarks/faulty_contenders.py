"""Contenders that break the promises of one, each in its way; the driver under test imports them."""

from __future__ import annotations

import os
import signal
import subprocess

import numpy as np

from benchmarks.contender import Contender, Unavailable


class _Honest(Contender):
    def setup(self, workload):
        return lambda inputs: inputs["x"]

    def close(self):
        pass


class Liar(_Honest):
    def setup(self, workload):
        return lambda inputs: inputs["x"] + np.float32(1)


class Absent(_Honest):
    def setup(self, workload):
        raise Unavailable("needs a thing that is not here")


class Suicide(_Honest):
    def setup(self, workload):
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


class Litterer(_Honest):
    """Leaves a process behind."""

    def setup(self, workload):
        self.child = subprocess.Popen(["sleep", "1000"])
        return super().setup(workload)

    def facts(self):
        return {"child": str(self.child.pid)}
