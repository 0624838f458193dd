"""F without ever yielding: S with 64 B copied in, answered with a copy, and the answer copied out."""

from __future__ import annotations

import mmap
import os

import numpy as np

from benchmarks.contender import Call
from benchmarks.floors.spin import PARK, REPLY, REQUEST, Spin
from benchmarks.workloads import DTYPE, Array, Inputs, Workload

INPUT_OFFSET, OUTPUT_OFFSET = 4096, 8192


class SpinCopy(Spin):
    answers = True

    def setup(self, workload: Workload) -> Call:
        if workload.nbytes != 64:
            raise ValueError(f"this floor is defined for 64 B, not for {workload.nbytes} B")
        memory = memoryview(mmap.mmap(-1, 3 * 4096))
        words = self._words = memory.cast("Q")
        bell = self._bell = os.eventfd(0)
        size = workload.nbytes // DTYPE.itemsize
        request = np.frombuffer(memory, DTYPE, size, INPUT_OFFSET)
        reply = np.frombuffer(memory, DTYPE, size, OUTPUT_OFFSET)
        copyto = np.copyto

        def serve() -> None:
            while True:
                os.read(bell, 8)
                seen = 0
                while seen != PARK:
                    while words[REQUEST] == seen:
                        pass
                    seen = words[REQUEST]
                    copyto(reply, request)
                    words[REPLY] = seen

        self._start(serve)
        count = 0
        answer = np.empty(size, DTYPE)

        def call(inputs: Inputs) -> Array:
            nonlocal count
            copyto(request, inputs["x"])
            count += 1
            words[REQUEST] = count
            while words[REPLY] != count:
                pass
            copyto(answer, reply)
            return answer

        return call
