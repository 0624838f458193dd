"""M: one `np.copyto` of all the input into shared memory that was touched before."""

from __future__ import annotations

import mmap

from benchmarks.contender import Call, Contender
from benchmarks.peers import packing
from benchmarks.workloads import Workload


class Copy(Contender):
    """Where there are 100 inputs, one `np.concatenate` of them all into one block, the quickest way there is."""

    answers = False

    def setup(self, workload: Workload) -> Call:
        return packing.writer(workload, memoryview(mmap.mmap(-1, workload.nbytes)))

    def close(self) -> None:
        pass
