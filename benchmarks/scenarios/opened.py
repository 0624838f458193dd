"""Opens the models of `scenario_models` through opexec's public API, with specs, in the caller's version of Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import opexec
from benchmarks.scenarios import scenario_models
from opexec import Environment, TensorSpec

_SPEC = [TensorSpec("x", "float32", ("n",))], [TensorSpec("y", "float32", ("m",))]


def load(factory: str, **arguments: Any) -> opexec.Model:
    """`opexec.load` of a factory; in a worker unless `isolation` says otherwise."""
    if arguments.get("isolation") != "none":
        arguments.setdefault("env", Environment(requirements=["numpy"]))
    inputs, outputs = _SPEC
    source = f"{Path(scenario_models.__file__).resolve()}:{factory}"
    return opexec.load(source, inputs=inputs, outputs=outputs, **arguments)
