"""LitServe: an HTTP server with one worker process, joined by its fast queue. It takes JSON, so the arrays go as base64."""

from __future__ import annotations

import base64
import functools
import gc
import json
import sys
from typing import Any

import litserve
import numpy as np

from benchmarks.contender import Call, Contender
from benchmarks.peers import packing, server
from benchmarks.workloads import DTYPE, Array, Inputs, Workload


class LitServeServer(Contender):
    def setup(self, workload: Workload) -> Call:
        (port,) = server.free_ports(1)
        self._server = server.Server(__name__, workload, port)
        self._server.wait_until(functools.partial(server.answers, port, "/health"))
        post = self._post = server.Post(port, "/predict", "application/json")
        request = bytearray(workload.nbytes)
        write = packing.writer(workload, request)
        encode, decode = base64.b64encode, base64.b64decode

        def call(inputs: Inputs) -> Array:
            write(inputs)
            answer = json.loads(post(b'{"x": "%s"}' % encode(request)))
            return np.frombuffer(decode(answer["y"]), DTYPE)

        return call

    def facts(self) -> dict[str, str]:
        return {"litserve": litserve.__version__}

    def close(self) -> None:
        self._post.close()
        self._server.end()


class Api(litserve.LitAPI):
    def setup(self, device: Any) -> None:
        gc.disable()
        self._workload = server.workload()
        self._model = self._workload.load()

    def decode_request(self, request: dict[str, str]) -> dict[str, Array]:
        return packing.views(self._workload, base64.b64decode(request["x"]))

    def predict(self, inputs: dict[str, Array]) -> Array:
        return self._model(**inputs)["y"]

    def encode_response(self, output: Array) -> dict[str, str]:
        return {"y": base64.b64encode(output.tobytes()).decode()}


if __name__ == "__main__":
    app = litserve.LitServer(
        Api(), accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True, timeout=60
    )
    app.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
