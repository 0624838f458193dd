"""A picture of a comparison: answers, the user's metrics, latency and memory, a panel each, a row a model."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import caches, sizes
from ..errors import OpexecError
from .measuring import Comparison, Contender

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _PALE, _GREY, _RED = "#1f7a8c", "#a9d0d8", "#52606d", "#d64545"
_LONGEST_LABEL = 32

Panel = Callable[["Axes", Sequence[Contender]], None]


def check_available() -> None:
    """Raise OpexecError unless matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise OpexecError(
            "the plot needs matplotlib, which is not installed: pip install 'opexec[bench]', or do without the plot (--no-plot)"
        ) from None


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture as PNG, whole or not at all. Raises OpexecError."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    contenders = comparison.contenders
    panels: list[Panel] = [_differences(comparison)]
    panels += [_metric(name) for name in comparison.metrics]
    panels += [_latency, _memory]
    height = 1.9 + 0.5 * len(contenders)
    with rc_context({"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(2.2 + 3.3 * len(panels), height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, panel in zip(axes, panels):
            panel(axis, contenders)
            axis.grid(axis="x", color="#e4e7eb", linewidth=0.8)
            axis.set_axisbelow(True)
            axis.tick_params(axis="y", length=0)
        first = axes[0]
        first.set_yticks(range(len(contenders)), [_label(contender) for contender in contenders])
        first.set_ylim(len(contenders) - 0.4, -0.6)  # the first model at the top
        samples = f"{comparison.samples} sample{'s' * (comparison.samples != 1)}"
        figure.suptitle(
            f"{comparison.problem.name}: {samples}, {comparison.rounds} rounds", x=0.01, ha="left"
        )
        picture = io.BytesIO()
        figure.savefig(picture, dpi=140, format="png")
    temporary = caches.scratch_beside(path.absolute())
    try:
        temporary.write_bytes(picture.getvalue())
        os.replace(temporary, path)
    except OSError as error:
        raise OpexecError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _label(contender: Contender) -> str:
    text = contender.label
    text = text if len(text) <= _LONGEST_LABEL else "…" + text[1 - _LONGEST_LABEL :]
    runner = contender.runner
    return f"{text}\n{runner['framework']} {runner['framework_version']}" if runner else text


def _title(axis: Axes, text: str, detail: str) -> None:
    axis.set_title(text, loc="left", fontweight="bold", fontsize=10)
    axis.set_xlabel(detail, color=_GREY)


def _note(axis: Axes, row: int, text: str, color: str = _GREY) -> None:
    """A text at the left of a row that has nothing to draw."""
    axis.text(
        0.02,
        row,
        text,
        transform=axis.get_yaxis_transform(),
        va="center",
        color=color,
        fontsize=8.5,
        zorder=4,
    )


def _differences(comparison: Comparison) -> Panel:
    """Largest and mean difference of the output that differs most, on a scale of powers of ten."""

    def panel(axis: Axes, contenders: Sequence[Contender]) -> None:
        against = {"expected": "the right outputs", "first model": "the first model"}
        _title(
            axis, "answers", f"● largest  ○ mean difference from {against.get(comparison.reference, 'both')}"
        )
        axis.set_xscale("log")
        drawn: list[float] = []
        for row, contender in enumerate(contenders):
            found = list(contender.answers.outputs.values())
            numbers = [each for each in found if each.numbers]
            if contender.error is not None:
                _note(axis, row, "failed", _RED)
            elif not found:
                _note(axis, row, "reference" if row == 0 else "")
            elif any(each.misshapen for each in found):
                _note(axis, row, "another shape", _RED)
            elif not numbers:
                wrong, elements = (
                    sum(getattr(each, name) for each in found) for name in ("differing", "elements")
                )
                _note(axis, row, f"{wrong} of {elements} texts differ", _RED if wrong else _GREY)
            else:
                worst = max(numbers, key=lambda each: each.largest)
                if worst.largest == 0:
                    _note(axis, row, "equal")
                elif not math.isfinite(worst.largest):
                    _note(axis, row, "infinite, or NaN", _RED)
                else:
                    axis.plot([worst.mean, worst.largest], [row, row], color=_PALE, linewidth=2, zorder=2)
                    axis.plot([worst.mean], [row], "o", color="white", markeredgecolor=_BLUE, zorder=3)
                    axis.plot([worst.largest], [row], "o", color=_BLUE, zorder=3)
                    drawn += [worst.mean, worst.largest]
        if drawn:
            axis.set_xlim(min(drawn) / 10, max(drawn) * 10)
        else:
            axis.set_xticks([])

    return panel


def _metric(name: str) -> Panel:
    def panel(axis: Axes, contenders: Sequence[Contender]) -> None:
        _title(axis, name, "mean over samples")
        for row, contender in enumerate(contenders):
            values = contender.answers.metrics.get(name)
            mean = sum(values) / len(values) if values else math.nan
            if contender.error is not None or not math.isfinite(mean):
                _note(axis, row, "failed" if contender.error else str(mean), _RED)
            else:
                axis.barh(row, mean, height=0.5, color=_BLUE)
                axis.annotate(
                    f"{mean:.4g}", (mean, row), (4, 0), textcoords="offset points", va="center", fontsize=8.5
                )
        axis.margins(x=0.2)

    return panel


def _latency(axis: Axes, contenders: Sequence[Contender]) -> None:
    _title(axis, "latency of a call", "● p50  │ p90  whisker to p99")
    axis.set_xscale("log")
    measured = []
    for row, contender in enumerate(contenders):
        p50, p90, p99 = (contender.percentile(percent) for percent in (50, 90, 99))
        if contender.error is not None or p50 is None or p90 is None or p99 is None:
            _note(axis, row, "failed" if contender.error else "not measured", _RED)
            continue
        axis.plot([p50, p99], [row, row], color=_PALE, linewidth=2, zorder=2)
        axis.plot([p90], [row], "|", color=_BLUE, markersize=11, zorder=3)
        axis.plot([p50], [row], "o", color=_BLUE, zorder=3)
        measured += [p50, p99]
    _scale_of_times(axis, measured)


def _scale_of_times(axis: Axes, measured: list[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if not measured:
        axis.set_xticks([])
        return
    low, high = min(measured) / 1.5, max(measured) * 1.5
    axis.set_xlim(low, high)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    axis.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(_time))


def _time(seconds: float, position: Any) -> str:
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit * 0.9999 or name == "µs":
            return f"{seconds / unit:.3g} {name}"
    return ""


def _memory(axis: Axes, contenders: Sequence[Contender]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    _title(axis, "memory of the worker", "resident; dark: its own alone")
    for row, contender in enumerate(contenders):
        if contender.error is not None or not contender.resident:
            _note(axis, row, "failed" if contender.error else "not measured", _RED)
            continue
        mib = 1 << 20
        axis.barh(row, contender.resident / mib, height=0.5, color=_PALE)
        axis.barh(row, contender.own / mib, height=0.5, color=_BLUE)
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
