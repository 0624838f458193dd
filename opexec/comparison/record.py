"""A comparison as plain data, for JSON: times in seconds, sizes in bytes, what is no finite number as a text."""

from __future__ import annotations

import math
from typing import Any

from ..ipc import VERSION
from .answers import OutputDifference
from .measuring import PERCENTILES, Comparison, Contender


def as_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "opexec": VERSION,
        "problem": comparison.problem.name,
        "samples": comparison.samples,
        "rounds": comparison.rounds,
        "reference": comparison.reference,
        "models": [_contender(contender, comparison.metrics) for contender in comparison.contenders],
    }


def _contender(contender: Contender, metrics: tuple[str, ...]) -> dict[str, Any]:
    return {
        "model": contender.label,
        "source": contender.source,
        "error": contender.error,
        "runs_in": contender.runner,
        "proven_by_specs": contender.fit is not None and contender.fit.proven,
        "loading": contender.loading,
        "answers": {name: _difference(found) for name, found in contender.answers.outputs.items()},
        "metrics": {name: _metric(contender.answers.metrics.get(name, [])) for name in metrics},
        "latency": _latency(contender),
        "memory": {"resident": contender.resident, "own": contender.own} if contender.resident else None,
    }


def _difference(found: OutputDifference) -> dict[str, Any]:
    return {
        "elements": found.elements,
        "differing": found.differing,
        "max_difference": _number(found.largest) if found.numbers else None,
        "mean_difference": _number(found.mean) if found.numbers else None,
        "samples_of_another_shape": found.misshapen,
    }


def _metric(values: list[float]) -> dict[str, Any] | None:
    if not values:
        return None
    return {"mean": _number(sum(values) / len(values)), "values": [_number(value) for value in values]}


def _latency(contender: Contender) -> dict[str, Any] | None:
    if not contender.seconds:
        return None
    told: dict[str, Any] = {f"p{percent}": contender.percentile(percent) for percent in PERCENTILES}
    return told | {
        "least": min(contender.seconds),
        "mean": sum(contender.seconds) / len(contender.seconds),
        "calls": len(contender.seconds),
    }


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
