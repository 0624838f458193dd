"""The pictures of the page: horizontal bars, one colour for opexec, another for peers; or one for each side of a call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from benchmarks.contender import REGISTRY
from benchmarks.grid import BUSY, SMALLEST
from benchmarks.scenarios.result import Bar, Found, number

_COLORS = {
    "opexec": "#d64545",
    "peer": "#1f7a8c",
    "in process": "#9aa5b1",
    "the least": "#9aa5b1",
    "caller": "#d64545",
    "worker": "#f0932b",
}
_NAMED = {"in process": "in process, or without the others"}


def bars(found: Found, path: Path) -> Path | None:
    """Draw what a scenario found; None where it has nothing to draw."""
    if not found.bars:
        return None
    _draw(found.bars, found.title, found.axis, found.log, path)
    return path


def peers(data: dict[str, Any], path: Path) -> Path | None:
    """The 64 B call of everybody, from the JSON of a latency run, quickest first."""
    wanted = SMALLEST.model, SMALLEST.nbytes, BUSY
    drawn = []
    for case in data["cases"]:
        entry = REGISTRY.get(case["contender"])
        if entry is None or (case["model"], case["nbytes"], case["mode"]) != wanted:
            continue
        if entry.kind in ("peer", "in process") or case["contender"] == "opexec":
            p50 = case["p50_ns"]
            drawn.append(
                Bar(entry.title, entry.kind, p50["median"] / 1e3, p50["low"] / 1e3, p50["high"] / 1e3)
            )
    if not drawn:
        return None
    drawn.sort(key=lambda bar: bar.value)
    _draw(drawn, "A call with 64 B in and out", "p50, µs", True, path)
    return path


def _draw(drawn: Sequence[Bar], title: str, axis: str, log: bool, path: Path) -> None:
    # The same bytes for the same figures: no date, and no random names of parts.
    style: dict[Any, Any] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "opexec",
    }
    with pyplot.rc_context(style):
        figure, panel = pyplot.subplots(figsize=(9, 1.1 + 0.36 * len(drawn)), layout="constrained")
        places = range(len(drawn))
        values = [bar.value for bar in drawn]
        spread = [
            [max(0.0, bar.value - bar.low) for bar in drawn],
            [max(0.0, bar.high - bar.value) for bar in drawn],
        ]
        panel.barh(
            places,
            values,
            xerr=spread,
            color=[_COLORS[bar.group] for bar in drawn],
            error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": "#323f4b"},
            height=0.7,
        )
        if log:
            panel.set_xscale("log")
            panel.set_xlim(right=max(bar.high for bar in drawn) * 2.2)
        else:
            panel.margins(x=0.12)
        for place, bar in zip(places, drawn, strict=True):
            panel.annotate(
                number(bar.value),
                (max(bar.high, bar.value, 0), place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        panel.set_yticks(places, [bar.label for bar in drawn])
        panel.invert_yaxis()
        panel.set_title(title, loc="left", fontweight="bold")
        panel.set_xlabel(axis)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        panel.grid(axis="x", color="#e4e7eb", linewidth=0.8)
        panel.set_axisbelow(True)
        groups = list(dict.fromkeys(bar.group for bar in drawn))
        if len(groups) > 1:
            handles = [Rectangle((0, 0), 1, 1, color=_COLORS[group]) for group in groups]
            figure.legend(
                handles,
                [_NAMED.get(group, group) for group in groups],
                loc="outside lower right",
                ncols=3,
                frameon=False,
            )
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
