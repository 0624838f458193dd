"""A picture of a comparison: answers, the user's metrics, latency and memory, a panel each, a row a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import pictures, sizes
from ..files import whole_files
from ..pictures import BLUE, GREY, PALE, RED, note, scale_of_times, title
from .measuring import Comparison, Contender

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panel = Callable[["Axes", Sequence[Contender]], None]


def check_available() -> None:
    """Raise OpexecError unless matplotlib is installed."""
    pictures.check_available(", or do without the plot (--no-plot)")


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture as PNG, whole or not at all. Raises OpexecError."""
    contenders = comparison.contenders
    panels: list[Panel] = [_differences(comparison)]
    panels += [_metric(name) for name in comparison.metrics]
    panels += [_latency, _memory]
    height = 1.9 + 0.5 * len(contenders)
    with pictures.style():
        figure = pictures.blank(2.2 + 3.3 * len(panels), height)
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, panel in zip(axes, panels):
            panel(axis, contenders)
            axis.grid(axis="x", color=pictures.GRID, linewidth=0.8)
            axis.set_axisbelow(True)
            axis.tick_params(axis="y", length=0)
        first = axes[0]
        first.set_yticks(range(len(contenders)), [_label(contender) for contender in contenders])
        first.set_ylim(len(contenders) - 0.4, -0.6)  # the first model at the top
        samples = f"{comparison.samples} sample{'s' * (comparison.samples != 1)}"
        figure.suptitle(
            f"{comparison.problem.name}: {samples}, {comparison.rounds} rounds", x=0.01, ha="left"
        )
        whole_files.write_bytes(path, pictures.drawn(figure, "png"))


def _label(contender: Contender) -> str:
    text = pictures.short(contender.label)
    runner = contender.runner
    return f"{text}\n{runner['framework']} {runner['framework_version']}" if runner else text


def _differences(comparison: Comparison) -> Panel:
    """Largest and mean difference of the output that differs most, on a scale of powers of ten."""

    def panel(axis: Axes, contenders: Sequence[Contender]) -> None:
        against = {"expected": "the right outputs", "first model": "the first model"}
        other = against.get(comparison.reference, "right outputs or first model")
        title(axis, "answers", f"● largest  ○ mean difference from {other}")
        axis.set_xscale("log")
        drawn: list[float] = []
        for row, contender in enumerate(contenders):
            found = list(contender.answers.outputs.values())
            numbers = [each for each in found if each.numbers]
            if contender.error is not None:
                note(axis, row, "failed", RED)
            elif not found:
                note(axis, row, "reference" if row == 0 else "")
            elif any(each.misshapen for each in found):
                note(axis, row, "another shape", RED)
            elif not numbers:
                wrong, elements = (
                    sum(getattr(each, name) for each in found) for name in ("differing", "elements")
                )
                note(axis, row, f"{wrong} of {elements} texts differ", RED if wrong else GREY)
            else:
                worst = max(numbers, key=lambda each: each.largest)
                if worst.largest == 0:
                    note(axis, row, "equal")
                elif not math.isfinite(worst.largest):
                    note(axis, row, "infinite, or NaN", RED)
                else:
                    axis.plot([worst.mean, worst.largest], [row, row], color=PALE, linewidth=2, zorder=2)
                    axis.plot([worst.mean], [row], "o", color="white", markeredgecolor=BLUE, zorder=3)
                    axis.plot([worst.largest], [row], "o", color=BLUE, zorder=3)
                    drawn += [worst.mean, worst.largest]
        if drawn:
            axis.set_xlim(min(drawn) / 10, max(drawn) * 10)
        else:
            axis.set_xticks([])

    return panel


def _metric(name: str) -> Panel:
    def panel(axis: Axes, contenders: Sequence[Contender]) -> None:
        from matplotlib.ticker import MaxNLocator

        title(axis, name, "mean over samples")
        axis.xaxis.set_major_locator(MaxNLocator(4))
        for row, contender in enumerate(contenders):
            values = contender.answers.metrics.get(name)
            mean = sum(values) / len(values) if values else math.nan
            if contender.error is not None or not math.isfinite(mean):
                note(axis, row, "failed" if contender.error else str(mean), RED)
            else:
                axis.barh(row, mean, height=0.5, color=BLUE)
                axis.annotate(
                    f"{mean:.4g}", (mean, row), (4, 0), textcoords="offset points", va="center", fontsize=8.5
                )
        axis.margins(x=0.2)

    return panel


def _latency(axis: Axes, contenders: Sequence[Contender]) -> None:
    title(axis, "latency of a call", "● p50  │ p90  whisker to p99")
    axis.set_xscale("log")
    measured = []
    for row, contender in enumerate(contenders):
        p50, p90, p99 = (contender.percentile(percent) for percent in (50, 90, 99))
        if contender.error is not None or p50 is None or p90 is None or p99 is None:
            note(axis, row, "failed" if contender.error else "not measured", RED)
            continue
        axis.plot([p50, p99], [row, row], color=PALE, linewidth=2, zorder=2)
        axis.plot([p90], [row], "|", color=BLUE, markersize=11, zorder=3)
        axis.plot([p50], [row], "o", color=BLUE, zorder=3)
        measured += [p50, p99]
    scale_of_times(axis.xaxis, measured)


def _memory(axis: Axes, contenders: Sequence[Contender]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    title(axis, "memory of the worker", "resident; dark: its own alone")
    for row, contender in enumerate(contenders):
        if contender.error is not None or not contender.resident:
            note(axis, row, "failed" if contender.error else "not measured", RED)
            continue
        mib = 1 << 20
        axis.barh(row, contender.resident / mib, height=0.5, color=PALE)
        axis.barh(row, contender.own / mib, height=0.5, color=BLUE)
        axis.annotate(
            sizes.text(contender.resident),
            (contender.resident / mib, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axis.margins(x=0.25)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda mib, position: f"{mib:g} MiB"))
