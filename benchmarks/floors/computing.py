"""What the cores themselves can do: processes that compute for themselves, with nothing between them."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import processes

_COUNTED = struct.Struct("=Qd")
_SECONDS = struct.Struct("=d")


class Computing:
    """`count` forks of this process, each of which calls `compute` over and over when asked to; to be made before there are other threads."""

    def __init__(self, count: int, compute: Callable[[], object]) -> None:
        self._ends: list[tuple[int, int]] = []
        with ExitStack() as undo:
            self._undo = undo
            for _ in range(count):
                asked, ask = os.pipe()
                told, tell = os.pipe()
                undo.callback(processes.end, processes.fork(lambda a=asked, t=tell: _serve(a, t, compute)))  # type: ignore[misc]
                os.close(asked)
                os.close(tell)
                undo.callback(os.close, ask)
                undo.callback(os.close, told)
                self._ends.append((ask, told))
            self._undo = undo.pop_all()

    def rate(self, seconds: float) -> float:
        """Calls a second of all together, computing at once for so long."""
        for ask, _ in self._ends:
            os.write(ask, _SECONDS.pack(seconds))
        total = 0.0
        for _, told in self._ends:
            read = os.read(told, _COUNTED.size)
            if len(read) < _COUNTED.size:
                raise RuntimeError("a computing process ended instead of telling how far it came")
            calls, span = _COUNTED.unpack(read)
            total += calls / span
        return total

    def close(self) -> None:
        self._undo.close()


def _serve(asked: int, tell: int, compute: Callable[[], object]) -> None:
    while True:
        (seconds,) = _SECONDS.unpack(os.read(asked, _SECONDS.size))
        count, start = 0, time.perf_counter()
        while (span := time.perf_counter() - start) < seconds:
            compute()
            count += 1
        os.write(tell, _COUNTED.pack(count, span))
