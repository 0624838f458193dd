"""MLServer: gRPC with raw contents. The model runs in the server's process, which its documentation calls no parallel inference."""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
import tempfile
from pathlib import Path

import grpc
import mlserver
import numpy as np
from mlserver.codecs import NumpyCodec
from mlserver.grpc import dataplane_pb2 as messages
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.contender import Call, Contender
from benchmarks.peers import server
from benchmarks.workloads import DTYPE, Array, Inputs, Workload

_NAME = "model"


class MlserverServer(Contender):
    def setup(self, workload: Workload) -> Call:
        http, rpc, metrics = server.free_ports(3)
        self._folder = tempfile.TemporaryDirectory(prefix="opexec-benchmark-")
        _write_settings(Path(self._folder.name), http, rpc, metrics)
        start = [os.path.join(os.path.dirname(sys.executable), "mlserver"), "start", self._folder.name]
        self._server = server.Server(__name__, workload, http, command=start)
        self._server.wait_until(functools.partial(server.answers, http, f"/v2/models/{_NAME}/ready"))
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{rpc}", options)
        infer = GRPCInferenceServiceStub(self._channel).ModelInfer
        described = [
            messages.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=shape)
            for name, shape in workload.input_shapes.items()
        ]

        def call(inputs: Inputs) -> Array:
            contents = [array.tobytes() for array in inputs.values()]
            request = messages.ModelInferRequest(
                model_name=_NAME, inputs=described, raw_input_contents=contents
            )
            response = infer(request)
            if response.raw_output_contents:
                return np.frombuffer(response.raw_output_contents[0], DTYPE)
            return np.array(response.outputs[0].contents.fp32_contents, DTYPE)

        return call

    def facts(self) -> dict[str, str]:
        return {"mlserver": mlserver.__version__}

    def close(self) -> None:
        self._channel.close()
        self._server.end()
        self._folder.cleanup()


class Runtime(mlserver.MLModel):
    async def load(self) -> bool:
        gc.disable()
        self._model = server.workload().load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {given.name: NumpyCodec.decode_input(given) for given in payload.inputs}
        answer = self._model(**inputs)["y"]
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("y", np.ascontiguousarray(answer))]
        )


def _write_settings(folder: Path, http: int, rpc: int, metrics: int) -> None:
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": rpc,
        "metrics_port": metrics,
        "metrics_dir": str(folder),
        "environments_dir": str(folder),
        "metrics_endpoint": None,
        "grpc_max_message_length": 2**30,
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": _NAME, "implementation": f"{__name__}.{Runtime.__name__}"}
    (folder / "model-settings.json").write_text(json.dumps(model))
