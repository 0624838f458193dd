"""pyisolate: an extension that shares the host's torch; tensors lie in shared memory once and for all, and their handles travel."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyisolate
import torch

from benchmarks.contender import Call, Contender
from benchmarks.peers import packing
from benchmarks.workloads import DTYPE, Array, Inputs, Workload


class _Extension(pyisolate.ExtensionBase):
    """What can be called; the extension's process has one too, and there it is that the calls run."""

    async def on_module_loaded(self, module: Any) -> None:
        pass

    async def load_model(self, model: str, nbytes: int) -> None:
        gc.disable()
        self._workload = Workload(model, nbytes)
        self._model = self._workload.load()

    async def infer(self, request: Any, reply: Any) -> Any:
        views = packing.views(self._workload, memoryview(request.numpy()).cast("B"))
        np.copyto(reply.numpy(), self._model(**views)["y"])
        return reply


class PyisolateExtension(Contender):
    def setup(self, workload: Workload) -> Call:
        # It makes the extension's venv with the uv that is installed beside it.
        os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
        self._folder = tempfile.TemporaryDirectory(prefix="opexec-benchmark-")
        module = Path(self._folder.name, "extension")
        module.mkdir()
        (module / "__init__.py").touch()
        self._manager = pyisolate.ExtensionManager(
            _Extension, {"venv_root_path": f"{self._folder.name}/venvs"}
        )
        extension = self._manager.load_extension(
            {
                "name": "benchmark",
                "module_path": str(module),
                "isolated": True,
                "dependencies": [],
                "apis": [],
                "share_torch": True,
                "share_cuda_ipc": False,
                "sandbox_mode": pyisolate.SandboxMode.DISABLED,
                "env": {"PYTHONPATH": os.environ["PYTHONPATH"]},
            }
        )
        self._loop = loop = asyncio.new_event_loop()
        run = loop.run_until_complete
        run(extension.load_model(workload.model, workload.nbytes))
        request = torch.empty(workload.nbytes // DTYPE.itemsize).share_memory_()
        reply = torch.empty(workload.output_nbytes // DTYPE.itemsize).share_memory_()
        write = packing.writer(workload, memoryview(request.numpy()).cast("B"))
        ask = extension.infer

        def call(inputs: Inputs) -> Array:
            write(inputs)
            answer: Array = run(ask(request, reply)).numpy()
            return answer

        return call

    def facts(self) -> dict[str, str]:
        return {"pyisolate": metadata.version("pyisolate"), "torch": torch.__version__}

    def close(self) -> None:
        self._manager.stop_all_extensions()
        self._loop.close()
        self._folder.cleanup()
