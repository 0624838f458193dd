"""All inputs of a workload side by side in one block of bytes: how an expert sends many small arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.workloads import DTYPE, Array, Inputs, Workload

Buffer = bytes | bytearray | memoryview


def writer(workload: Workload, buffer: Buffer) -> Callable[[Inputs], None]:
    """A function that writes the inputs of `workload` into `buffer`, which is at least `workload.nbytes` long."""
    copyto, concatenate = np.copyto, np.concatenate
    block = _block(workload, buffer)

    def write_one(inputs: Inputs) -> None:
        copyto(block, inputs["x"])

    def write_many(inputs: Inputs) -> None:
        concatenate(list(inputs.values()), out=block)

    return write_one if is_single(workload) else write_many


def views(workload: Workload, buffer: Buffer) -> dict[str, Array]:
    """The inputs as a `writer` has written them into `buffer`, by name, without copying."""
    block = _block(workload, buffer)
    shapes = workload.input_shapes
    rows = next(iter(shapes.values()))[0]
    return {name: block[index * rows : (index + 1) * rows] for index, name in enumerate(shapes)}


def is_single(workload: Workload) -> bool:
    """Whether the workload has one input, named x."""
    return len(workload.input_shapes) == 1


def _block(workload: Workload, buffer: Buffer) -> Array:
    # Inputs of one shape lie along the first axis, so that one concatenate, a single call into C, writes them all.
    shapes = workload.input_shapes
    first = next(iter(shapes.values()))
    block = np.frombuffer(buffer, DTYPE, workload.nbytes // DTYPE.itemsize)
    return block.reshape(len(shapes) * first[0], *first[1:])
