"""multiprocessing.Pipe with `send` and `recv`: the arrays are pickled."""

from __future__ import annotations

import multiprocessing

from benchmarks import processes
from benchmarks.contender import Call, Contender, Stream
from benchmarks.workloads import Array, Inputs, Workload


class PipeSend(Contender):
    def setup(self, workload: Workload) -> Call:
        near, far = multiprocessing.Pipe()

        def serve() -> None:
            near.close()
            model = workload.load()
            while True:
                far.send(model(**far.recv())["y"])

        self._partner = processes.fork(serve)
        far.close()
        self._connection = near
        send, receive = near.send, near.recv

        def call(inputs: Inputs) -> Array:
            send(inputs)
            answer: Array = receive()
            return answer

        return call

    def stream(self) -> Stream:
        return self._connection.send, lambda _: self._connection.recv()

    def close(self) -> None:
        processes.end(self._partner)
        self._connection.close()
