"""What single operations take that a call is made of, each in a loop of its own, with warm caches."""

from __future__ import annotations

import mmap
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np

from opexec.ipc.wire import HEAD


def prices(count: int) -> dict[str, float]:
    """Nanoseconds of each operation, the best of several loops of `count`; what the loop itself takes is left out."""
    operations = _operations()
    empty = _best(lambda: None, count)
    called = empty  # each operation is wrapped in one Python function, whose price is that of the first one
    found = {name: _best(operation, count) - called for name, operation in operations.items()}
    return {"a Python function": called - _bare(count), **found}


def _operations() -> dict[str, Callable[[], object]]:
    map = mmap.mmap(-1, 4096)
    words = memoryview(map).cast("Q")
    array = np.zeros(16, np.float32)
    shape, dtype, span = array.shape, array.dtype, slice(0, 64)
    lock, ended, table = threading.Lock(), deque[object](), {}
    append, pack, unpack = ended.append, HEAD.pack_into, HEAD.unpack_from

    def copy() -> None:
        map[span] = array  # type: ignore[call-overload]

    def view() -> None:
        np.ndarray(shape, dtype, map, 128)  # type: ignore[call-overload]

    def lease() -> None:
        weakref.ref(array, append)

    def locked() -> None:
        with lock:
            pass

    def entry() -> None:
        table[1] = array
        table.pop(1)

    def record() -> None:
        pack(words, 256, 1, 2, 3, 4, 5, 6, 7, 8)

    def read() -> None:
        unpack(words, 256)

    def word() -> None:
        words[1] = 7

    return {
        "64 B copied into shared memory": copy,
        "an array over shared memory": view,
        "a weak reference with a callback": lease,
        "a record packed": record,
        "a record unpacked": read,
        "a word written": word,
        "a lock taken and released": locked,
        "an entry of a dict set and popped": entry,
    }


def _best(operation: Callable[[], object], count: int) -> float:
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter_ns()
        for _ in range(count):
            operation()
        best = min(best, (time.perf_counter_ns() - begin) / count)
    return best


def _bare(count: int) -> float:
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter_ns()
        for _ in range(count):
            pass
        best = min(best, (time.perf_counter_ns() - begin) / count)
    return best
