"""A report in words and cells of tables, for the terminal, for CSV and for the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from .. import sizes
from .comparing import NOISE, Change
from .report import Report, Result
from .statistics import Ratio

STRIP_WIDTH = 26


def duration(seconds: float | None) -> str:
    """Nothing for None."""
    return "" if seconds is None else sizes.duration(seconds)


def number(value: float | None) -> str:
    """Three digits or more: ``"7,872"``, ``"12.5"``."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def ratio(found: Ratio | None) -> str:
    """``"1.25 × (1.21 to 1.30)"``."""
    if found is None:
        return ""
    if found.high == float("inf"):
        return f"{found.value:.3g} × (too few rounds)"
    return f"{found.value:.3g} × ({found.low:.3g} to {found.high:.3g})"


def against_base(report: Report, result: Result) -> str:
    difference = report.difference(result)
    if difference is None:
        return ""
    text = ratio(difference.p50)
    return text if difference.p50.beyond_noise or difference.p50.high == float("inf") else f"{text}, noise"


def copied(result: Result) -> str:
    """Bytes a call, in and out: ``"48 B + 48 B"``."""
    costs = result.costs
    if costs is None or result.axes["isolation"] == "none":
        return ""
    return f"{sizes.text(round(costs.copied_in))} + {sizes.text(round(costs.copied_out))}"


def memory(result: Result) -> str:
    return "" if result.costs is None or result.costs.memory is None else sizes.text(result.costs.memory)


def strip(result: Result, low: float, high: float) -> str:
    """A line of characters on a logarithmic scale from `low` to `high` seconds: p50 ``●``, p90 ``┼``, up to p99 ``─``, up to the slowest ``·``."""
    import math

    found = result.latency
    if found is None or result.error is not None:
        return ""

    def place(seconds: float) -> int:
        share = math.log(max(seconds, low) / low) / math.log(high / low) if high > low else 0.0
        return min(round(share * (STRIP_WIDTH - 1)), STRIP_WIDTH - 1)

    cells = [" "] * STRIP_WIDTH
    for end, sign in ((found.max, "·"), (found.p99, "─")):
        for cell in range(place(found.p50), place(end) + 1):
            cells[cell] = sign
    cells[place(found.p90)] = "┼"
    cells[place(found.p50)] = "●"
    return "".join(cells).rstrip()


def bounds(report: Report) -> tuple[float, float]:
    """The fastest median and the slowest call of all."""
    found = [
        result.latency for result in report.results if result.latency is not None and result.error is None
    ]
    if not found:
        return 1e-6, 1e-6
    return min(each.p50 for each in found), max(each.max for each in found)


def change(found: Change) -> str:
    return "within noise" if found.verdict == NOISE else f"{found.verdict}, {ratio(found.p50)}"


_FIGURES = ("calls", "mean", "least", "p50", "p90", "p99", "p999", "max")


def as_csv(report: Report) -> str:
    """A line a variant, times in seconds, sizes in bytes; the first line names the columns."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    axes = ("model", "env", "isolation", "replicas", "callers", "batch", "sizes")
    writer.writerow(
        [
            *("label", *axes, "inputs", "error", "load", "first_call", *_FIGURES, "throughput"),
            *(
                "after_idle_p50",
                "caller_cpu",
                "worker_cpu",
                "copied_in",
                "copied_out",
                "memory",
                "shared_memory",
            ),
            *("p50_ratio", "p50_ratio_low", "p50_ratio_high"),
        ]
    )
    for result in report.results:
        difference = report.difference(result)
        costs = result.costs
        writer.writerow(
            [
                result.label,
                *(_plain(result.axes[axis]) for axis in axes),
                "; ".join(f"{name}: {text}" for name, text in result.inputs.items()),
                result.error or "",
                "" if result.start is None else result.start.loads[0],
                "" if result.start is None else result.start.first_calls[0],
                *("" if result.latency is None else getattr(result.latency, name) for name in _FIGURES),
                _blank(result.throughput),
                "" if result.after_idle is None else result.after_idle.p50,
                *(
                    "" if costs is None else _blank(getattr(costs, name))
                    for name in (
                        "caller_cpu",
                        "worker_cpu",
                        "copied_in",
                        "copied_out",
                        "memory",
                        "shared_memory",
                    )
                ),
                *(
                    ("", "", "")
                    if difference is None
                    else (difference.p50.value, difference.p50.low, difference.p50.high)
                ),
            ]
        )
    return file.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return " ".join(f"{name}={size}" for name, size in value.items())
    return _blank(value)


def _blank(value: object) -> object:
    return "" if value is None else value


def notes(report: Report) -> Sequence[str]:
    """What a reader of the figures should know, a line each."""
    lines = []
    for result in report.results:
        if result.error is not None:
            lines.append(f"{result.label} was left out: {result.error}")
        elif result.start is not None and not result.start.steady:
            lines.append(
                f"{result.label} was still getting faster after {result.start.warm_up_seconds:.3g} s of warming up: "
                "its figures are not of a steady state (--warm-up gives it longer)"
            )
        if result.never_made:
            lines.append(
                f"{result.label} did not keep up with {report.settings.rate:g} calls a second: {result.never_made} calls were never made, "
                "and count with the time they waited"
            )
        elif (
            report.settings.rate is not None
            and (result.throughput or 0) < 0.95 * report.settings.rate
            and result.throughput
        ):
            lines.append(
                f"{result.label} did not keep up with {report.settings.rate:g} calls a second: it made {number(result.throughput)}"
            )
    return lines
