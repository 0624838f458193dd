"""F: the minimal round trip between two Python processes that do not burn a core when there is nothing to do.

64 B are copied into shared memory, the partner copies them into its answer, the caller copies the answer out: three
copies of 64 B over cached views, with no checks, no descriptors and no locks. Both sides wait alike: 20 looks at a
word, then up to 45 looks with a `sched_yield` after each (about 50 us), then they say that they sleep and block on an
eventfd.
"""

from __future__ import annotations

import mmap
import os
import select
import threading

import numpy as np

from benchmarks.contender import Call
from benchmarks.floors.paired import Paired
from benchmarks.workloads import DTYPE, Array, Inputs, Workload

REQUEST, REPLY, PARTNER_SLEEPS, CALLER_SLEEPS = 0, 16, 32, 48
INPUT_OFFSET, OUTPUT_OFFSET = 4096, 8192
LOOKS, YIELDS = 20, 45
RECHECK_MS = 1_000
"""What a lost wake-up would cost, should the fence ever not do."""


class Minimal(Paired):
    def setup(self, workload: Workload) -> Call:
        if workload.nbytes != 64:
            raise ValueError(f"F is defined for 64 B, not for {workload.nbytes} B")
        memory = memoryview(mmap.mmap(-1, 3 * 4096))
        words = memory.cast("Q")
        partner_bell = os.eventfd(0, os.EFD_NONBLOCK)
        caller_bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._bells = partner_bell, caller_bell
        size = workload.nbytes // DTYPE.itemsize
        request = np.frombuffer(memory, DTYPE, size, INPUT_OFFSET)
        reply = np.frombuffer(memory, DTYPE, size, OUTPUT_OFFSET)
        copyto, sched_yield = np.copyto, os.sched_yield

        fence = threading.Lock()

        def sleep(word: int, seen: int, flag: int, bell: int) -> None:
            poll = select.poll()
            poll.register(bell, select.POLLIN)
            words[flag] = 1
            with fence:  # orders saying that one sleeps before looking once more
                pass
            while words[word] == seen:
                if poll.poll(RECHECK_MS):
                    os.eventfd_read(bell)
            words[flag] = 0

        def wait(word: int, seen: int, flag: int, bell: int) -> None:
            for _ in range(LOOKS):
                if words[word] != seen:
                    return
            for _ in range(YIELDS):
                if words[word] != seen:
                    return
                sched_yield()
            sleep(word, seen, flag, bell)

        def serve() -> None:
            seen = 0
            while True:
                wait(REQUEST, seen, PARTNER_SLEEPS, partner_bell)
                seen = words[REQUEST]
                copyto(reply, request)
                words[REPLY] = seen
                if words[CALLER_SLEEPS]:
                    os.eventfd_write(caller_bell, 1)

        self._start(serve)
        count = 0
        answer = np.empty(size, DTYPE)

        def call(inputs: Inputs) -> Array:
            nonlocal count
            copyto(request, inputs["x"])
            seen = count
            count += 1
            words[REQUEST] = count
            if words[PARTNER_SLEEPS]:
                os.eventfd_write(partner_bell, 1)
            wait(REPLY, seen, CALLER_SLEEPS, caller_bell)
            copyto(answer, reply)
            return answer

        return call

    def close(self) -> None:
        super().close()
        for bell in self._bells:
            os.close(bell)
