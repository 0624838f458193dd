"""Opens a benchmark model through opexec's public API, with specs, so that every check is on."""

from __future__ import annotations

from pathlib import Path

import opexec
from benchmarks import models
from benchmarks.contender import Options
from benchmarks.workloads import Workload
from opexec import Environment, TensorSpec


def open_model(workload: Workload, options: Options, *, isolation: str = "process") -> opexec.Model:
    """Load the model of `workload`: in a worker of `options.worker_python`, or in this process."""
    many = len(workload.input_shapes) > 1
    inputs = [
        TensorSpec(name, "float32", shape if many else ("n",))
        for name, shape in workload.input_shapes.items()
    ]
    output = TensorSpec("y", "float32", ("n",) if workload.model == "echo" else workload.output_shape)
    environment = Environment(python=options.worker_python, requirements=["numpy"])
    return opexec.load(
        f"{Path(models.__file__).resolve()}:{workload.model}",
        env=environment if isolation == "process" else None,
        isolation=isolation,
        inputs=inputs,
        outputs=[output],
    )
