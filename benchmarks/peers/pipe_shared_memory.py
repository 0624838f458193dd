"""SharedMemory blocks made once for input and output, and a Pipe that says when they are filled."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from benchmarks import processes
from benchmarks.contender import Call, Contender
from benchmarks.peers import packing
from benchmarks.workloads import DTYPE, Array, Inputs, Workload

NAME_PREFIX = "opexec_benchmark_"
_numbers = itertools.count()


class PipeSharedMemory(Contender):
    def setup(self, workload: Workload) -> Call:
        near, far = multiprocessing.Pipe()
        self._blocks = [_create(workload.nbytes), _create(workload.output_nbytes)]
        request, reply_buffer = self._blocks[0].buf, self._blocks[1].buf
        assert request is not None and reply_buffer is not None  # they are open
        reply: Array = np.frombuffer(reply_buffer, DTYPE, workload.output_nbytes // DTYPE.itemsize)
        write = packing.writer(workload, request)

        def serve() -> None:
            near.close()
            model = workload.load()
            views, copyto = packing.views(workload, request), np.copyto
            while True:
                far.recv_bytes()
                copyto(reply, model(**views)["y"])
                far.send_bytes(b"!")

        self._partner = processes.fork(serve)
        far.close()
        self._connection = near
        send, receive = near.send_bytes, near.recv_bytes

        def call(inputs: Inputs) -> Array:
            write(inputs)
            send(b"!")
            receive()
            return reply

        return call

    def close(self) -> None:
        processes.end(self._partner)
        self._connection.close()
        for block in self._blocks:
            block.close()
            block.unlink()


def _create(size: int) -> SharedMemory:
    return SharedMemory(f"{NAME_PREFIX}{os.getpid()}_{next(_numbers)}", create=True, size=size)
