"""Ray on this machine alone: an actor that holds the model, called remotely, or through a compiled graph."""

from __future__ import annotations

import gc
import os
from typing import Any

os.environ.setdefault(
    "RAY_AUTH_MODE", "disabled"
)  # it listens on this machine alone, and else writes a token into the home folder

import ray
from ray.dag import InputNode

from benchmarks.contender import Call, Contender, Stream
from benchmarks.workloads import Array, Inputs, Workload


class RayActor(Contender):
    def setup(self, workload: Workload) -> Call:
        # Workers import the benchmarks by PYTHONPATH, which they inherit.
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=2**30,
            _node_ip_address="127.0.0.1",
        )
        self._actor: Any = ray.remote(num_cpus=1)(_Model).remote(workload.model)
        ray.get(self._actor.ready.remote())
        return self._open(workload)

    def _open(self, workload: Workload) -> Call:
        run, get = self._actor.run.remote, ray.get

        def call(inputs: Inputs) -> Array:
            answer: Array = get(run(inputs))
            return answer

        return call

    def stream(self) -> Stream | None:
        return self._actor.run.remote, ray.get

    def facts(self) -> dict[str, str]:
        return {"ray": ray.__version__}

    def close(self) -> None:
        ray.shutdown()


class RayGraph(RayActor):
    """The actor of a compiled graph looks without pause, so the graph is compiled when measuring begins and torn down when it pauses."""

    _compiled: Any = None

    def _open(self, workload: Workload) -> Call:
        self._room = 2 * max(workload.nbytes, workload.output_nbytes) + 2**20
        get = ray.get

        def call(inputs: Inputs) -> Array:
            answer: Array = get(self._compiled.execute(inputs))
            return answer

        return call

    def stream(self) -> None:
        """None: results that are not fetched at once need room set aside for them."""
        return None

    def wake(self) -> None:
        with InputNode() as given:
            graph = self._actor.run.bind(given)  # a new one, as none can be compiled twice
        self._compiled = graph.experimental_compile(_buffer_size_bytes=self._room)

    def park(self) -> None:
        self._compiled.teardown()


class _Model:
    def __init__(self, model: str) -> None:
        gc.disable()
        self._model = Workload(model, 0).load()

    def ready(self) -> None:
        pass

    def run(self, inputs: dict[str, Any]) -> Any:
        return self._model(**inputs)["y"]
