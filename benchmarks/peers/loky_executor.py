"""loky: its ProcessPoolExecutor with one worker that holds the model."""

from __future__ import annotations

import os

import loky

from benchmarks.contender import Call, Contender, Stream
from benchmarks.peers import process_pool
from benchmarks.workloads import Array, Inputs, Workload


class LokyExecutor(Contender):
    def setup(self, workload: Workload) -> Call:
        self._pool = loky.ProcessPoolExecutor(
            max_workers=1, initializer=process_pool.initialize, initargs=(workload, os.getpid())
        )
        submit = self._submit = self._pool.submit

        def call(inputs: Inputs) -> Array:
            answer: Array = submit(process_pool.run, inputs).result()
            return answer

        return call

    def stream(self) -> Stream:
        return lambda inputs: self._submit(process_pool.run, inputs), lambda future: future.result()

    def facts(self) -> dict[str, str]:
        return {"loky": loky.__version__}

    def close(self) -> None:
        self._pool.shutdown(kill_workers=True)
