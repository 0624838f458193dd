"""What the cases of all platforms share. Runs in the foreign interpreter."""

import numpy as np
import pytest

GUARD = 4096
PATTERN = 0xAB


class Memory:
    """Stands for the worker's arena: `reserve` gives arrays with guard bytes on both sides, and remembers them."""

    def __init__(self):
        self.reserved = []
        self._guards = []

    def reserve(self, specs):
        arrays = {}
        for name, dtype, shape in specs:
            size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
            raw = np.full(2 * GUARD + size + 64, PATTERN, np.uint8)
            begin = GUARD + -(raw.__array_interface__["data"][0] + GUARD) % 64
            arrays[name] = raw[begin : begin + size].view(dtype).reshape(shape)
            self._guards.append((raw[:begin], raw[begin + size :]))
        self.reserved.append(arrays)
        return arrays

    def holds(self, result):
        """Whether a result is one that was reserved, so that nothing is left to copy."""
        return any(result is arrays for arrays in self.reserved)

    def check(self):
        for guards in self._guards:
            for guard in guards:
                assert (guard == PATTERN).all(), "something was written outside of the reserved memory"


@pytest.fixture
def memory():
    memory = Memory()
    yield memory
    memory.check()
