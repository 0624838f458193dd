"""multiprocessing.Pipe with `send_bytes` and `recv_bytes_into`: raw bytes into buffers made once.

Both sides know the shapes beforehand.
"""

from __future__ import annotations

import multiprocessing

import numpy as np

from benchmarks import processes
from benchmarks.contender import Call, Contender, Stream
from benchmarks.peers import packing
from benchmarks.workloads import DTYPE, Array, Inputs, Workload


class PipeBytes(Contender):
    def setup(self, workload: Workload) -> Call:
        near, far = multiprocessing.Pipe()

        def serve() -> None:
            near.close()
            model = workload.load()
            request = bytearray(workload.nbytes)
            views = packing.views(workload, request)
            while True:
                far.recv_bytes_into(request)
                far.send_bytes(_bytes_of(model(**views)["y"]))

        self._partner = processes.fork(serve)
        far.close()
        self._connection = near
        reply = bytearray(workload.output_nbytes)
        answer: Array = np.frombuffer(reply, DTYPE)
        send, receive_into = near.send_bytes, near.recv_bytes_into

        if packing.is_single(workload):

            def call(inputs: Inputs) -> Array:
                send(_bytes_of(inputs["x"]))
                receive_into(reply)
                return answer

        else:
            request = bytearray(workload.nbytes)
            write = packing.writer(workload, request)

            def call(inputs: Inputs) -> Array:
                write(inputs)
                send(request)
                receive_into(reply)
                return answer

        def receive(ticket: None) -> Array:
            receive_into(reply)
            return answer

        self._stream: Stream = (lambda inputs: send(_bytes_of(inputs["x"])), receive)
        return call

    def stream(self) -> Stream:
        return self._stream

    def close(self) -> None:
        processes.end(self._partner)
        self._connection.close()


def _bytes_of(array: Array) -> memoryview:
    return array.data.cast("B")
