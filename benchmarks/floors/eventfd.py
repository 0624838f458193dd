"""E: two processes ring each other's eventfd and block on their own: the price of sleeping until somebody calls."""

from __future__ import annotations

import os
import sys

from benchmarks import processes
from benchmarks.contender import Call, Contender
from benchmarks.workloads import Inputs, Workload


class Eventfd(Contender):
    answers = False

    def setup(self, workload: Workload) -> Call:
        there, back = self._bells = os.eventfd(0), os.eventfd(0)
        # Written and read as bytes, which is a little quicker than os.eventfd_write and os.eventfd_read.
        read, write, one = os.read, os.write, (1).to_bytes(8, sys.byteorder)

        def serve() -> None:
            while True:
                read(there, 8)
                write(back, one)

        self._partner = processes.fork(serve)

        def call(inputs: Inputs) -> None:
            write(there, one)
            read(back, 8)

        return call

    def close(self) -> None:
        processes.end(self._partner)
        for bell in self._bells:
            os.close(bell)
