"""Timed calls as a trace file in Chrome's JSON format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format" of the Chromium project. Times are in microseconds of the monotonic clock, from the first call on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..connection.timing import CallTimes
from .breakdown import STEPS
from .report import Report


@dataclass(frozen=True)
class Traced:
    """Timed calls of one variant."""

    label: str
    caller: int
    """Process ids."""
    worker: int
    calls: Sequence[CallTimes]


def events(traced: Sequence[Traced]) -> dict[str, Any]:
    """The content of the file: for each variant a row of the caller and one of its worker, with an arrow from a call to its run and back."""
    origin = min((call.began for one in traced for call in one.calls), default=0)
    told: list[dict[str, Any]] = []
    for row, one in enumerate(traced, 1):
        caller, worker = _row(one.caller, row), _row(one.worker, row)
        told += [
            _named("process_name", caller, f"caller ({one.caller})"),
            _named("thread_name", caller, one.label),
            _named("process_name", worker, f"worker of {one.label} ({one.worker})"),
            _named("thread_name", worker, "calls"),
        ]
        for number, call in enumerate(one.calls):
            told += _call(call, origin, caller, worker, f"{row}.{number}", number)
    return {"traceEvents": told, "displayTimeUnit": "ns", "otherData": {"clock": "CLOCK_MONOTONIC"}}


def of(report: Report) -> dict[str, Any]:
    """The timed calls of a report."""
    return events([Traced(each.label, *each.pids, each.timed) for each in report.results if each.timed])


def _call(
    call: CallTimes, origin: int, caller: dict[str, int], worker: dict[str, int], flow: str, number: int
) -> list[dict[str, Any]]:
    def at(reading: str) -> float:
        return (getattr(call, reading) - origin) / 1e3

    def span(name: str, first: str, last: str, row: dict[str, int], kind: str) -> dict[str, Any]:
        began = at(first)
        return {"name": name, "cat": kind, "ph": "X", "ts": began, "dur": round(at(last) - began, 3), **row}

    def arrow(phase: str, reading: str, row: dict[str, int], which: str) -> dict[str, Any]:
        made = {"name": which, "cat": "flow", "ph": phase, "id": f"{flow}.{which}", "ts": at(reading), **row}
        return {**made, "bp": "e"} if phase == "f" else made

    whole = span("infer", "began", "returned", caller, "call")
    whole["args"] = {"call": number}
    told = [whole, span("run", "taken", "answered", worker, "call")]
    for step in STEPS:
        if step.side != "between":
            told.append(
                span(step.name, step.first, step.last, caller if step.side == "caller" else worker, step.side)
            )
    told.append(span("waiting", "sent", "seen", caller, "caller"))
    told += [arrow("s", "sent", caller, "wake-up"), arrow("f", "taken", worker, "wake-up")]
    told += [arrow("s", "answered", worker, "return"), arrow("f", "seen", caller, "return")]
    return told


def _row(pid: int, row: int) -> dict[str, int]:
    return {"pid": pid, "tid": row}


def _named(kind: str, row: dict[str, int], name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", **row, "args": {"name": name}}
