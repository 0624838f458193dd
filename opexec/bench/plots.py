"""Pictures of a report: all in one PNG, and each by itself as SVG for the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import pictures
from ..files import whole_files
from ..pictures import BLUE, COLORS, GREY, PALE, RED, note, scale_of_times, title
from . import words
from .breakdown import STEPS
from .report import Report, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panel = Callable[["Axes", Report], None]

STEP_COLORS = dict(
    zip(
        (step.key for step in STEPS),
        ("#5b4b9a", "#e8a33d", "#8ab4c4", "#1f7a8c", "#4a9d5b", "#d6784a", "#9b8ac4"),
    )
)


def check_available() -> None:
    """Raise OpexecError unless matplotlib is installed."""
    pictures.check_available(", or do without pictures (neither --png nor --html)")


def panels(report: Report) -> list[tuple[str, Panel]]:
    """Those that have something to show, with a sentence that says what is seen."""
    measured = _measured(report)
    several = len(measured) > 1
    found: list[tuple[str, Panel]] = [
        ("How long calls take: median, p90, p99, and the slowest. Hollow: after idling.", _summary)
    ]
    if measured:
        found.append(("The whole distribution. Each step to the right is ten times rarer.", _curve))
    if several:
        found.append(
            ("The median against its base, round by round, with 95 % intervals. Grey: within noise.", _ratios)
        )
    if any(result.breakdown for result in measured):
        found.append(("Where the time of one call goes: the middle half of the timed calls.", _steps))
    if measured and max(len(result.rounds) for result in measured) > 1:
        found.append(("The median of each round: drift and disturbances of the machine show here.", _rounds))
    if several:
        found.append(("Calls a second.", _throughput))
    return found


def draw(report: Report, path: Path) -> None:
    """All panels as one PNG, whole or not at all. Raises OpexecError."""
    shown = panels(report)
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    with pictures.style():
        figure = pictures.blank(7.4 * columns, _height(report) * rows + 0.5)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis, (_, panel) in zip(axes, shown):
            _fill(axis, panel, report)
        for axis in axes[len(shown) :]:
            axis.set_visible(False)
        figure.suptitle(headline(report), x=0.01, ha="left", fontsize=10.5, color=GREY)
        whole_files.write_bytes(path, pictures.drawn(figure, "png"))


def svgs(report: Report) -> list[tuple[str, bytes]]:
    """Each panel as a picture of its own, with its sentence."""
    made = []
    with pictures.style():
        for text, panel in panels(report):
            figure = pictures.blank(7.4, _height(report))
            _fill(figure.subplots(), panel, report)
            made.append((text, pictures.drawn(figure, "svg")))
    return made


def headline(report: Report) -> str:
    settings, machine = report.settings, report.machine
    loop = "closed loop" if settings.rate is None else f"open loop, {settings.rate:g} calls/s"
    rounds = max((len(result.rounds) for result in report.results), default=0)
    return f"{loop}, {rounds} rounds of {settings.seconds:g} s · {machine['cpu']}, {machine['cores_usable']:g} cores · opexec {report.opexec}"


def color(report: Report, result: Result) -> str:
    """The same in every picture."""
    place = next(place for place, each in enumerate(report.results) if each is result)
    return COLORS[place % len(COLORS)]


def _fill(axis: Axes, panel: Panel, report: Report) -> None:
    panel(axis, report)
    axis.set_axisbelow(True)


def _height(report: Report) -> float:
    return max(2.9, 1.5 + 0.42 * len(report.results))


def _measured(report: Report) -> list[Result]:
    return [result for result in report.results if result.rounds and result.error is None]


def _rows(axis: Axes, results: Sequence[Result]) -> None:
    axis.set_yticks(range(len(results)), [pictures.short(result.label) for result in results])
    axis.set_ylim(len(results) - 0.4, -0.6)  # the first at the top
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color=pictures.GRID, linewidth=0.8)


def _summary(axis: Axes, report: Report) -> None:
    title(axis, "latency of a call", "● p50   | p90   line to p99   · slowest   ○ p50 after idle")
    axis.set_xscale("log")
    shown: list[float] = []
    for row, result in enumerate(report.results):
        found = result.latency
        if result.error is not None or found is None:
            note(axis, row, "failed", RED)
            continue
        own = color(report, result)
        axis.plot([found.p50, found.p99], [row, row], color=own, alpha=0.35, linewidth=5, zorder=2)
        axis.plot([found.p90], [row], "|", color=own, markersize=11, zorder=3)
        axis.plot([found.p50], [row], "o", color=own, markersize=8, zorder=4)
        axis.plot([found.max], [row], ".", color=own, markersize=4, zorder=3)
        shown += [found.p50, found.max]
        if result.after_idle is not None:
            axis.plot(
                [result.after_idle.p50],
                [row + 0.22],
                "o",
                markersize=5,
                markerfacecolor="white",
                markeredgecolor=own,
                zorder=4,
            )
            shown.append(result.after_idle.p50)
    scale_of_times(axis.xaxis, shown)
    _rows(axis, report.results)


def _curve(axis: Axes, report: Report) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    title(axis, "latency by percentile", "percentile of calls")
    axis.set_xscale("log")
    axis.set_yscale("log")
    shown: list[float] = []
    rarest = 10.0
    for result in _measured(report):
        assert result.latency is not None
        points = [(100 / (100 - share), seconds) for share, seconds in result.latency.curve()]
        axis.plot(
            *zip(*points), color=color(report, result), linewidth=1.8, label=pictures.short(result.label)
        )
        shown += [seconds for _, seconds in points]
        rarest = max(rarest, points[-1][0])
    marks = [2.0, *(10.0**power for power in range(1, math.floor(math.log10(rarest)) + 1))]
    axis.set_xlim(1, rarest * 1.1)
    axis.xaxis.set_major_locator(FixedLocator([1.0, *marks]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels(["0", *(f"p{100 - 100 / mark:.10g}" for mark in marks)])
    scale_of_times(axis.yaxis, shown)
    axis.grid(color=pictures.GRID, linewidth=0.8)
    if len(_measured(report)) > 1:
        # Below: the curves may be anywhere.
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.45, -0.17), ncols=2)


def _ratios(axis: Axes, report: Report) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    title(axis, "median, as a multiple of its base", "times as long; bar: 95 % interval")
    bounds = [1.0]
    for row, result in enumerate(report.results):
        difference = report.difference(result)
        if difference is None:
            note(axis, row, "failed" if result.error else "base", RED if result.error else GREY)
            continue
        ratio = difference.p50
        own = (RED if ratio.value > 1 else BLUE) if ratio.beyond_noise else GREY
        high = min(ratio.high, ratio.value * 4)
        axis.plot([max(ratio.low, ratio.value / 4), high], [row, row], color=own, alpha=0.5, linewidth=3)
        axis.plot([ratio.value], [row], "o", color=own, markersize=7)
        axis.annotate(
            f"{ratio.value:.3g} ×",
            (ratio.value, row),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
        bounds += [max(ratio.low, ratio.value / 4), high]
    axis.axvline(1, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    low, high = min(bounds), max(bounds)
    if high / low > 4:
        axis.set_xscale("log")
        axis.set_xlim(low / 1.3, high * 1.3)
        axis.xaxis.set_minor_formatter(FuncFormatter(lambda value, place: ""))
    else:
        room = max(high - low, 0.05) * 0.15
        axis.set_xlim(low - room, high + room)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g} ×"))
    _rows(axis, report.results)


def _steps(axis: Axes, report: Report) -> None:
    from matplotlib.patches import Patch

    shown = [result for result in _measured(report) if result.breakdown is not None]
    longest = max(result.breakdown.total for result in shown if result.breakdown)
    scale, unit = next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms")) if longest >= s), (1e-6, "µs"))
    title(axis, "where the time of one call goes", unit)
    for row, result in enumerate(shown):
        assert result.breakdown is not None
        left = 0.0
        for step in STEPS:
            width = result.breakdown.steps[step.key] / scale
            axis.barh(
                row,
                width,
                left=left,
                height=0.55,
                color=STEP_COLORS[step.key],
                edgecolor="white",
                linewidth=0.6,
            )
            left += width
        axis.annotate(
            pictures.time_text(result.breakdown.total),
            (left, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axis.margins(x=0.12)
    axis.set_xlim(left=0)
    axis.legend(
        handles=[Patch(color=STEP_COLORS[step.key], label=step.name) for step in STEPS],
        ncols=len(STEPS),
        frameon=False,
        fontsize=8,
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.98),
        handlelength=0.9,
        columnspacing=0.9,
        handletextpad=0.4,
    )
    axis.set_title("where the time of one call goes", loc="left", fontweight="bold", fontsize=10, pad=20)
    _rows(axis, shown)


def _rounds(axis: Axes, report: Report) -> None:
    from matplotlib.ticker import MaxNLocator

    title(axis, "median of each round", "round")
    axis.set_yscale("log")
    shown = []
    for result in _measured(report):
        medians = [each.p50 for each in result.rounds]
        axis.plot(
            range(1, len(medians) + 1),
            medians,
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            color=color(report, result),
            label=pictures.short(result.label),
        )
        shown += medians
    scale_of_times(axis.yaxis, shown)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", color=pictures.GRID, linewidth=0.8)


def _throughput(axis: Axes, report: Report) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    title(axis, "calls a second", "median of the rounds")
    for row, result in enumerate(report.results):
        if result.throughput is None or result.error is not None:
            note(axis, row, "failed", RED)
            continue
        axis.barh(row, result.throughput, height=0.5, color=color(report, result), alpha=0.8)
        axis.annotate(
            words.number(result.throughput),
            (result.throughput, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    if report.settings.rate is not None:
        axis.axvline(report.settings.rate, color=PALE, linewidth=1.5, zorder=1)
    axis.margins(x=0.2)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,g}"))
    _rows(axis, report.results)
