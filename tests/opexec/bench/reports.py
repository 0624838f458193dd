"""Reports made up for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from opexec.bench.report import Costs, Report, Result, Round, Settings, Start
from opexec.bench.statistics import Latency
from opexec.connection.timing import CallTimes

MACHINE: dict[str, Any] = {
    "cpu": "A Processor <of> 2 & more",
    "architecture": "x86_64",
    "cores": 2,
    "cores_usable": 2.0,
    "virtual": True,
    "memory": 1 << 34,
    "kernel": "6.1",
    "load_average": 0.25,
    "python": "CPython 3.11.7",
    "switch_interval": 0.005,
    "packages": {"numpy": "2.4.6"},
}

#: Microseconds of a call's steps: copy in 5, wake-up 20, bind 2, model 100, copy out 8, return 30, arrays 4.
TIMED = CallTimes(*(1_000 * (7 + at) for at in (0, 5, 25, 27, 127, 135, 165, 169)))


def result(
    label: str = "net.onnx",
    medians: Sequence[float] = (1e-3,) * 6,
    pace: Sequence[float] | float = 5e-4,
    timed: int = 3,
    error: str | None = None,
    **axes: Any,
) -> Result:
    paces = [pace] * len(medians) if isinstance(pace, float) else list(pace)
    isolated = axes.get("isolation", "process") == "process"
    return Result(
        label=label,
        axes={
            "model": "net.onnx",
            "env": None,
            "isolation": "process",
            "replicas": 1,
            "callers": 1,
            "batch": None,
            "sizes": {},
            **axes,
        },
        inputs={"x": "float32[1, 3]"},
        runner={
            "framework": "onnxruntime",
            "framework_version": "1.32.0",
            "python": "3.11.7",
            "numpy": "2.4.6",
            "interpreter": "python",
        },
        error=error,
        start=Start((0.5,), (0.02,), 40, 0.2, True),
        latency=Latency.of(np.array([int(1e9 * each) for each in medians] * 40, np.int64)),
        after_idle=Latency.of(np.array([2_000_000], np.int64)),
        rounds=tuple(
            Round(p50, 1.5 * p50, 3 * p50, 1.1 * p50, 1 / p50, speed) for p50, speed in zip(medians, paces)
        ),
        throughput=1 / medians[0],
        costs=Costs(2e-5, 9e-5 if isolated else None, 12.0, 48.0, 60 << 20, 2 << 20),
        timed=(TIMED,) * timed if isolated else (),
        pids=(100, 200),
    )


def report(*results: Result, **settings: Any) -> Report:
    return Report(
        "0.1.0",
        "2030-01-02T03:04:05+00:00",
        MACHINE,
        Settings(rounds=6, seconds=0.1, **settings),
        tuple(results),
    )
