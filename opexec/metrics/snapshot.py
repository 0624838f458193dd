"""All that is known of a model at one moment, as plain values: what `opexec top` shows, and what crosses sockets."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

import psutil

from ..model import BatchStats, Model, WorkerInfo


def of(model: Model) -> dict[str, Any]:
    """A model now: numbers, texts, lists and dicts alone.

    Times are in seconds, sizes in bytes. ``"at"`` is when this was, by CLOCK_MONOTONIC, the same in all processes of a machine, so that two
    snapshots give rates. ``"latency"`` has a summary for each stage (see `LatencySummary`). A worker has ``"memory"``, its resident set with the
    shared memory that it has mapped, and ``"cpu_seconds"``; both are None where it has no process. ``"batches"`` is None without a `BatchPolicy`.
    """
    stats = model.stats()
    return {
        "at": time.monotonic(),
        "model": model.name,
        "platform": model.platform,
        "owner": os.getpid(),
        "ready": model.ready,
        "calls": stats.calls,
        "in_flight": stats.in_flight,
        "errors": dict(stats.errors),
        "restarts": stats.restarts,
        "bytes_copied_in": stats.bytes_copied_in,
        "bytes_copied_out": stats.bytes_copied_out,
        "shared_memory": stats.shared_memory,
        "blocks_held": stats.blocks_held,
        "latency": {stage: dataclasses.asdict(one) for stage, one in stats.latency.items()},
        "batches": None if stats.batches is None else _batches(stats.batches),
        "workers": [_worker(one) for one in model.workers],
    }


def _batches(batches: BatchStats) -> dict[str, Any]:
    return {
        "count": batches.batches,
        "calls": batches.calls,
        "rows": batches.rows,
        "sizes": [[rows, count] for rows, count in batches.sizes.items()],
        "mean_calls": batches.mean_calls,
        "fill": batches.fill,
        "max_size": batches.max_size,
    }


def _worker(worker: WorkerInfo) -> dict[str, Any]:
    memory, cpu_seconds = use(worker.pid)
    return {
        "pid": worker.pid,
        "state": worker.state,
        "reason": worker.reason,
        "since": worker.since,
        "restarts": worker.restarts,
        "python": worker.python,
        "framework": worker.framework,
        "framework_version": worker.framework_version,
        "memory": memory,
        "cpu_seconds": cpu_seconds,
    }


def use(pid: int | None) -> tuple[int | None, float | None]:
    """A process's resident memory in bytes, and the seconds of CPU that it has used; None for both where it is gone."""
    if pid is None:
        return None, None
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return int(process.memory_info().rss), float(times.user + times.system)
    except psutil.Error:
        return None, None


def of_all(models: Mapping[str, Model]) -> dict[str, dict[str, Any]]:
    """The models of a program, by the names that it has for them."""
    return {name: of(model) for name, model in models.items()}
