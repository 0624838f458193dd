"""concurrent.futures.ProcessPoolExecutor with one worker that holds the model."""

from __future__ import annotations

import gc
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from benchmarks import processes
from benchmarks.contender import Call, Contender, Stream
from benchmarks.workloads import Array, Inputs, Model, Workload

_model: Model | None = None


class ProcessPool(Contender):
    def setup(self, workload: Workload) -> Call:
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("fork"),
            initializer=initialize,
            initargs=(workload, os.getpid()),
        )
        submit = self._pool.submit

        def call(inputs: Inputs) -> Array:
            return submit(run, inputs).result()

        return call

    def stream(self) -> Stream:
        return lambda inputs: self._pool.submit(run, inputs), lambda future: future.result()

    def close(self) -> None:
        self._pool.shutdown()


def initialize(workload: Workload, parent: int) -> None:
    """Make the model, in the worker."""
    global _model
    processes.die_with_parent(parent)
    gc.disable()
    _model = workload.load()


def run(inputs: Inputs) -> Array:
    """Call it there."""
    assert _model is not None
    return _model(**inputs)["y"]
