"""S: two processes pass a number to and fro through shared memory, both looking at a word without pause.

No data, no checks, no sleep: no two Python processes can answer each other sooner. The two words lie two cache lines
apart.
"""

from __future__ import annotations

import mmap
import os

from benchmarks.contender import Call, Options, Unavailable
from benchmarks.floors.paired import Paired
from benchmarks.workloads import Inputs, Workload

REQUEST, REPLY = 0, 16
PARK = 2**64 - 1


class Spin(Paired):
    """The partner spins between `wake` and `park` only; else it blocks on an eventfd."""

    answers = False
    _bell: int
    _words: memoryview

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if self._cores is None:
            raise Unavailable(
                "two processes that spin need two usable cores, and this process may use only one"
            )

    def setup(self, workload: Workload) -> Call:
        words = self._words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        bell = self._bell = os.eventfd(0)

        def serve() -> None:
            while True:
                os.read(bell, 8)
                seen = 0
                while seen != PARK:
                    while words[REQUEST] == seen:
                        pass
                    seen = words[REQUEST]
                    words[REPLY] = seen

        self._start(serve)
        count = 0

        def call(inputs: Inputs) -> None:
            # Numbers go on over `wake` and `park`; what counts is that each differs from the one before.
            nonlocal count
            count += 1
            words[REQUEST] = count
            while words[REPLY] != count:
                pass

        return call

    def wake(self) -> None:
        super().wake()
        self._words[REQUEST] = self._words[REPLY] = 0
        os.eventfd_write(self._bell, 1)

    def park(self) -> None:
        self._words[REQUEST] = PARK
        while self._words[REPLY] != PARK:
            pass
        super().park()

    def close(self) -> None:
        super().close()
        os.close(self._bell)
