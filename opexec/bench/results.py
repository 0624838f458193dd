"""What a report tells of a variant that was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import canonical_dtype
from ..errors import SpecError
from .report import Costs, Result, Round
from .statistics import Latency
from .subject import Block, Subject


def result(subject: Subject) -> Result:
    blocks = subject.blocks
    latency = after_idle = costs_found = throughput = None
    rounds = tuple(map(_round, blocks))
    if blocks:
        latency = Latency.of(np.concatenate([block.timed.nanoseconds for block in blocks]))
        idle = np.concatenate([block.idle for block in blocks])
        after_idle = Latency.of(idle) if len(idle) else None
        throughput = float(np.median([each.throughput for each in rounds]))
        costs_found = _costs(subject)
    return Result(
        label=subject.label,
        axes=subject.variant.axes,
        inputs={name: _described(array) for name, array in subject.inputs.items()},
        runner=subject.runner,
        error=subject.error,
        start=subject.start,
        latency=latency,
        after_idle=after_idle,
        rounds=rounds,
        throughput=throughput,
        never_made=sum(len(block.timed.nanoseconds) - block.timed.made for block in blocks),
        costs=costs_found,
        timed=subject.timed,
        pids=subject.pids,
    )


def _round(block: Block) -> Round:
    times = block.timed.nanoseconds / 1e9
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    throughput = block.timed.made / block.timed.elapsed
    return Round(p50, p90, p99, float(times.mean()), throughput, block.pace)


def _costs(subject: Subject) -> Costs:
    made = max(sum(block.timed.made for block in subject.blocks), 1)
    waiting = sum(block.timed.waiting for block in subject.blocks)
    worker = [block.spent.worker for block in subject.blocks]
    return Costs(
        caller_cpu=max(sum(block.spent.caller for block in subject.blocks) - waiting, 0.0) / made,
        worker_cpu=None if None in worker else sum(worker) / made,  # type: ignore[arg-type]
        copied_in=sum(block.spent.copied_in for block in subject.blocks) / made,
        copied_out=sum(block.spent.copied_out for block in subject.blocks) / made,
        memory=subject.memory,
        shared_memory=subject.shared_memory,
    )


def _described(array: Any) -> str:
    array = np.asarray(array)
    try:
        dtype = canonical_dtype(array.dtype)
    except SpecError:
        dtype = "text" if array.dtype.kind == "O" else str(array.dtype)
    return f"{dtype}[{', '.join(map(str, array.shape))}]"
