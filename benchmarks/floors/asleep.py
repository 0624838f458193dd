"""The least that a call to a sleeping process can be in Python: 64 B over and back, a record each way, both sides block on an eventfd.

It looks at types, dtypes and shapes, takes a lock, makes an array over the answer and a lease on it, as any call must that is
safe to make from threads and gives an answer that lasts. There is nothing else in it: no worker that may die, no timeout, no second
signature. `interpreter` is the partner's; without one it is a fork of this process, which shares its code and data with it.
"""

from __future__ import annotations

import mmap
import os
import select
import subprocess
import threading
import weakref
from collections import deque
from pathlib import Path

import numpy as np

from benchmarks import processes
from benchmarks.contender import Call
from benchmarks.floors import asleep_partner as partner
from benchmarks.workloads import Array, Inputs

_PROGRAM = Path(partner.__file__).resolve()


class Asleep:
    def __init__(self, interpreter: Path | None = None) -> None:
        self._bells = there, back = os.eventfd(0), os.eventfd(0)
        self._file = os.memfd_create("opexec-benchmark")
        os.ftruncate(self._file, partner.BYTES)
        self._map = memory = mmap.mmap(self._file, partner.BYTES)
        self._process: subprocess.Popen[bytes] | None = None
        if interpreter is None:
            self.pid = processes.fork(lambda: partner.serve(memory, there, back))
            return
        given = (self._file, there, back)
        self._process = subprocess.Popen(
            [interpreter, "-I", _PROGRAM, *map(str, given), str(os.getpid())],
            pass_fds=given,
            stdin=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        try:
            self._wait_until_ready(interpreter)
        except BaseException:
            self.close()
            raise

    def _wait_until_ready(self, interpreter: Path) -> None:
        assert self._process is not None
        poll = select.poll()
        poll.register(self._bells[1], select.POLLIN)
        while not poll.poll(100):
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"{interpreter} ended with status {self._process.returncode} instead of answering"
                )
        os.read(self._bells[1], 8)

    def call(self) -> Call:
        (there, back), memory, record = self._bells, self._map, partner.RECORD
        poll = select.poll()
        poll.register(back, select.POLLIN)
        sending, ended, count = threading.Lock(), deque[object](), 0
        dtype, shape = np.dtype(np.float32), (16,)
        leases: list[object] = [None]

        def call(inputs: Inputs) -> Array:
            nonlocal count
            (x,) = inputs.values()
            if type(x) is not np.ndarray or x.dtype is not dtype or x.shape != shape:
                raise ValueError("a minimal call takes 16 float32")
            with sending:
                count += 1
                memory[partner.INPUT : partner.INPUT + 64] = x  # type: ignore[call-overload]
                record.pack_into(memory, partner.REQUEST, 1, count, 0, 0, 0, 0, 0, 0)
                os.write(there, partner.ONE)
            poll.poll()
            os.read(back, 8)
            if record.unpack_from(memory, partner.REPLY)[1] != count:
                raise ValueError("the answer to another call")
            y: Array = np.ndarray(shape, dtype, memory, partner.OUTPUT)  # type: ignore[call-overload]
            leases[0] = weakref.ref(y, ended.append)
            return y

        return call

    def close(self) -> None:
        if self._process is None:
            processes.end(self.pid)
        else:
            self._process.kill()
            self._process.wait()
        for descriptor in (*self._bells, self._file):
            os.close(descriptor)
