"""appose: a Python service whose tasks find the model, and arrays in shared memory, exported once."""

from __future__ import annotations

import sys

import appose

from benchmarks.contender import Call, Contender
from benchmarks.peers import packing
from benchmarks.workloads import Array, Inputs, Workload

_WORKER = "import appose.python_worker; appose.python_worker.main()"
_EXPORT = """
import gc
import numpy as np
from benchmarks.peers import packing
from benchmarks.workloads import Workload

gc.disable()
workload = Workload(model, nbytes)
called = workload.load()
views = packing.views(workload, request.shm.buf)
answer = reply.ndarray()
def run():
    np.copyto(answer, called(**views)["y"])
task.export(run=run, kept=(request, reply))
"""


class ApposeService(Contender):
    def setup(self, workload: Workload) -> Call:
        self._service = appose.system().service([sys.executable], "-c", _WORKER).init("import numpy")
        self._request = appose.NDArray("float32", [workload.nbytes // 4])
        self._reply = appose.NDArray("float32", list(workload.output_shape))
        write = packing.writer(workload, self._request.shm.buf)
        answer: Array = self._reply.ndarray()
        given = {
            "model": workload.model,
            "nbytes": workload.nbytes,
            "request": self._request,
            "reply": self._reply,
        }
        self._service.task(_EXPORT, given).wait_for()
        task = self._service.task

        def call(inputs: Inputs) -> Array:
            write(inputs)
            task("run()").wait_for()
            return answer

        return call

    def facts(self) -> dict[str, str]:
        return {"appose": appose.__version__}

    def close(self) -> None:
        self._service.close()
        self._service.wait_for()
        for array in (self._request, self._reply):
            array.shm.unlink()
