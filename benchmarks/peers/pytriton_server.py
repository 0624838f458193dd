"""PyTriton: Triton's gRPC with the tensors in system shared memory, registered once; Triton hands them to a Python process beside it."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import signal
import sys
import sysconfig
from importlib import metadata
from typing import Any

import numpy as np
import tritonclient.grpc
from tritonclient.utils import shared_memory

from benchmarks.contender import Call, Contender
from benchmarks.peers import server
from benchmarks.workloads import DTYPE, Array, Inputs, Workload

_NAME, _KEY = "model", "opexec-benchmark"
_HEADER = {"triton-grpc-protocol-triton-access-token": _KEY}
_numbers = itertools.count()


class PyTritonServer(Contender):
    def setup(self, workload: Workload) -> Call:
        http, rpc, metrics = server.free_ports(3)
        # Triton's own Python stub is linked against libpython.
        library = os.pathsep.join(
            filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")])
        )
        command = [sys.executable, "-m", __name__, str(http), str(rpc), str(metrics)]
        self._server = server.Server(__name__, workload, http, {"LD_LIBRARY_PATH": library}, command)
        self._server.wait_until(functools.partial(server.answers, http, f"/v2/models/{_NAME}/ready"))
        self._client = client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{rpc}")
        self._regions: list[Any] = []
        inputs, outputs, blocks = [], [], {}
        for name, shape in workload.input_shapes.items():
            blocks[name], region, nbytes = self._shared(shape)
            given = tritonclient.grpc.InferInput(name, shape, "FP32")
            given.set_shared_memory(region, nbytes)
            inputs.append(given)
        answer, region, nbytes = self._shared(workload.output_shape)
        wanted = tritonclient.grpc.InferRequestedOutput("y")
        wanted.set_shared_memory(region, nbytes)
        outputs.append(wanted)
        copyto = np.copyto

        def call(given: Inputs) -> Array:
            for name, array in given.items():
                copyto(blocks[name], array)
            client.infer(_NAME, inputs, outputs=outputs)
            return answer

        return call

    def facts(self) -> dict[str, str]:
        return {"nvidia-pytriton": metadata.version("nvidia-pytriton")}

    def close(self) -> None:
        self._client.close()
        self._server.end()
        for region in self._regions:
            shared_memory.destroy_shared_memory_region(region)

    def _shared(self, shape: tuple[int, ...]) -> tuple[Array, str, int]:
        """An array in a region that Triton knows, the region's name and its size."""
        name = f"opexec_benchmark_{os.getpid()}_{next(_numbers)}"
        nbytes = int(np.prod(shape)) * DTYPE.itemsize
        region = shared_memory.create_shared_memory_region(name, f"/{name}", nbytes)
        self._regions.append(region)
        self._client.register_system_shared_memory(name, f"/{name}", nbytes, headers=_HEADER)
        return shared_memory.get_contents_as_numpy(region, DTYPE, shape), name, nbytes


def _serve(http: int, rpc: int, metrics: int) -> None:
    from pytriton.model_config import ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig

    # Asked to end, it leaves through `with`, which ends Triton and removes its shared memory.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gc.disable()
    workload = server.workload()
    model = workload.load()

    def infer(requests: Any) -> list[dict[str, Array]]:
        return [model(**request) for request in requests]

    config = TritonConfig(
        http_port=http,
        grpc_port=rpc,
        metrics_port=metrics,
        http_address="127.0.0.1",
        grpc_address="127.0.0.1",
    )
    with Triton(config=config, security_config=TritonSecurityConfig(access_token=_KEY)) as triton:
        triton.bind(
            _NAME,
            infer,
            inputs=[
                Tensor(name=name, dtype=DTYPE.type, shape=shape)
                for name, shape in workload.input_shapes.items()
            ],
            outputs=[Tensor(name="y", dtype=DTYPE.type, shape=workload.output_shape)],
            config=ModelConfig(batching=False),
        )
        triton.serve()


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))
