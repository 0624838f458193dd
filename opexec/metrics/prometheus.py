"""Models for Prometheus: a collector that looks at live models when it is scraped, and keeps nothing.

Names and units follow https://prometheus.io/docs/practices/naming/ : base units, `_total` for what only grows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ..model import Model
from . import snapshot
from .latency import BOUNDS, bounds_text

_logger = logging.getLogger("opexec.metrics")

#: Every state that a worker can be in (see `opexec.WorkerInfo`).
STATES = ("starting", "loading", "ready", "busy", "draining", "restarting", "failed", "stopped")

_LE = bounds_text(BOUNDS)
_ROWS = [2.0**power for power in range(13)]


class ModelCollector(Collector):
    """Collects the metrics of the models that `models` returns, by name."""

    def __init__(self, models: Callable[[], Mapping[str, Model]]) -> None:
        self._models = models

    def describe(self) -> Iterable[Metric]:
        """What is collected, without looking at any model."""
        return _Families().all()

    def collect(self) -> Iterator[Metric]:
        families = _Families()
        for name, model in self._models().items():
            try:
                families.add(name, snapshot.of(model), model)
            except Exception:  # one model must not hide the others
                _logger.exception("cannot tell the metrics of model %r", name)
        yield from families.all()


class _Families:
    def __init__(self) -> None:
        by_model, by_worker = ["model"], ["model", "replica"]
        self.ready = GaugeMetricFamily(
            "opexec_model_ready", "1 if a call would be sent at once.", labels=by_model
        )
        self.calls = CounterMetricFamily("opexec_calls", "Calls sent to the model.", labels=by_model)
        self.in_flight = GaugeMetricFamily(
            "opexec_calls_in_flight", "Calls sent that have no answer yet.", labels=by_model
        )
        self.errors = CounterMetricFamily(
            "opexec_errors", "Calls that raised, by the class of the error.", labels=["model", "type"]
        )
        self.seconds = HistogramMetricFamily(
            "opexec_call_seconds",
            "Stages of calls. Short calls are sampled; each that is timed counts as those it stands for. queue: those that waited to be sent.",
            labels=["model", "stage"],
        )
        self.batch_rows = HistogramMetricFamily(
            "opexec_batch_rows", "Rows of the batches sent, of a model that joins calls.", labels=by_model
        )
        self.batched = CounterMetricFamily(
            "opexec_batched_calls", "Calls that these batches were joined of.", labels=by_model
        )
        self.batch_most = GaugeMetricFamily(
            "opexec_batch_max_rows", "Most rows that a batch may have.", labels=by_model
        )
        self.copied = CounterMetricFamily(
            "opexec_copied_bytes",
            "Bytes of tensors copied into shared memory: inputs in, outputs out.",
            labels=["model", "direction"],
        )
        self.shared = GaugeMetricFamily(
            "opexec_shared_memory_bytes", "Shared memory that the model holds.", labels=by_model
        )
        self.held = GaugeMetricFamily(
            "opexec_output_blocks_held", "Output blocks that arrays of the caller hold.", labels=by_model
        )
        self.restarts = CounterMetricFamily(
            "opexec_worker_restarts", "How often a worker was replaced.", labels=by_model
        )
        self.state = GaugeMetricFamily(
            "opexec_worker_state", "1 for the state that the worker is in.", labels=[*by_worker, "state"]
        )
        self.memory = GaugeMetricFamily(
            "opexec_worker_memory_bytes",
            "Resident memory of the worker, mapped shared memory included.",
            labels=by_worker,
        )
        self.cpu = CounterMetricFamily(
            "opexec_worker_cpu_seconds", "CPU time of the present worker.", labels=by_worker
        )
        self.worker = InfoMetricFamily("opexec_worker", "What the worker runs.", labels=by_worker)

    def all(self) -> list[Metric]:
        return list(vars(self).values())

    def add(self, name: str, seen: dict[str, Any], model: Model) -> None:
        of_model = [name]
        self.ready.add_metric(of_model, float(seen["ready"]))
        self.calls.add_metric(of_model, seen["calls"])
        self.in_flight.add_metric(of_model, seen["in_flight"])
        for type, count in seen["errors"].items():
            self.errors.add_metric([name, type], count)
        for stage, buckets in ({} if model.latency is None else model.latency.buckets()).items():
            self.seconds.add_metric(
                [name, stage],
                buckets=list(zip(_LE, [*buckets.up_to, buckets.count])),
                sum_value=buckets.seconds,
            )
        if seen["batches"] is not None:
            self._add_batches(of_model, seen["batches"])
        self.copied.add_metric([name, "in"], seen["bytes_copied_in"])
        self.copied.add_metric([name, "out"], seen["bytes_copied_out"])
        self.shared.add_metric(of_model, seen["shared_memory"])
        self.held.add_metric(of_model, seen["blocks_held"])
        self.restarts.add_metric(of_model, seen["restarts"])
        for number, worker in enumerate(seen["workers"]):
            self._add_worker([name, str(number)], worker)

    def _add_batches(self, labels: list[str], batches: dict[str, Any]) -> None:
        up_to = [sum(count for rows, count in batches["sizes"] if rows <= bound) for bound in _ROWS]
        buckets = list(zip([*map(str, _ROWS), "+Inf"], [*up_to, batches["count"]]))
        self.batch_rows.add_metric(labels, buckets=buckets, sum_value=batches["rows"])
        self.batched.add_metric(labels, batches["calls"])
        self.batch_most.add_metric(labels, batches["max_size"])

    def _add_worker(self, labels: list[str], worker: dict[str, Any]) -> None:
        for state in STATES:
            self.state.add_metric([*labels, state], float(worker["state"] == state))
        if worker["memory"] is not None:
            self.memory.add_metric(labels, worker["memory"])
            self.cpu.add_metric(labels, worker["cpu_seconds"])
        known = ("python", "framework", "framework_version")
        self.worker.add_metric(
            labels, {"pid": str(worker["pid"] or ""), **{key: worker[key] for key in known}}
        )
