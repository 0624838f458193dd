"""mosec: an HTTP server with one worker process; the arrays travel as raw bytes, as both sides know their shapes."""

from __future__ import annotations

import functools
import gc
import sys
from importlib import metadata

import mosec
import numpy as np

from benchmarks.contender import Call, Contender
from benchmarks.peers import packing, server
from benchmarks.workloads import DTYPE, Array, Inputs, Workload


class MosecServer(Contender):
    def setup(self, workload: Workload) -> Call:
        (port,) = server.free_ports(1)
        settings = {
            "MOSEC_PORT": str(port),
            "MOSEC_ADDRESS": "127.0.0.1",
            "MOSEC_MAX_REQUEST_SIZE": str(workload.nbytes + 2**20),
            "MOSEC_TIMEOUT": "60000",
            "MOSEC_LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-m", __name__]
        self._server = server.Server(__name__, workload, port, settings, command)
        self._server.wait_until(functools.partial(server.answers, port, "/metrics"))
        post = self._post = server.Post(port, "/inference", "application/octet-stream")
        request = bytearray(workload.nbytes)
        write = packing.writer(workload, request)

        def call(inputs: Inputs) -> Array:
            write(inputs)
            return np.frombuffer(post(request), DTYPE)

        # It answers /metrics before its worker is there.
        self._server.wait_until(functools.partial(_served, call, workload))
        return call

    def facts(self) -> dict[str, str]:
        return {"mosec": metadata.version("mosec")}

    def close(self) -> None:
        self._post.close()
        self._server.end()


class Worker(mosec.Worker):
    def __init__(self) -> None:
        super().__init__()
        gc.disable()
        self._workload = server.workload()
        self._model = self._workload.load()

    def deserialize(self, data: bytes) -> dict[str, Array]:
        return packing.views(self._workload, data)

    def forward(self, data: dict[str, Array]) -> Array:
        return self._model(**data)["y"]

    def serialize(self, data: Array) -> bytes:
        return data.tobytes()


def _served(call: Call, workload: Workload) -> bool:
    try:
        call(workload.inputs())
    except RuntimeError:
        return False
    return True


if __name__ == "__main__":
    app = mosec.Server()
    app.append_worker(Worker, num=1)
    app.run()
