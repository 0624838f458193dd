"""The picture of a run: p50 by size, tiny and equal output, busy and after idle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from benchmarks.contender import REGISTRY
from benchmarks.grid import BUSY, IDLE, Case
from benchmarks.report import Run, copy_figures, figures, nbytes_title, unit_figures
from benchmarks.rounds import AFTER_IDLE
from benchmarks.workloads import Workload

_COLORS = {
    "plain": "#9aa5b1",
    "in-process": "#52606d",
    "opexec": "#d64545",
    "opexec-empty": "#f0932b",
    "opexec-slice": "#f5c469",
    "pipe-shm": "#1f7a8c",
    "pipe-bytes": "#3d5a98",
    "zmq": "#7b4b94",
    "pipe": "#4a9d5b",
    "executor": "#8a6d3b",
    "queue": "#c8a415",
    "simple-queue": "#a3b18a",
    "loky": "#6d597a",
    "joblib": "#b56576",
    "iceoryx2": "#0b8457",
    "iceoryx2-events": "#7fb685",
    "torch": "#ee6c4d",
    "appose": "#8d99ae",
    "pyisolate": "#457b9d",
    "ezmsg": "#bc6c25",
    "ray": "#2a6f97",
    "ray-graph": "#61a5c2",
    "mosec": "#9d4edd",
    "litserve": "#c77dff",
    "pytriton": "#76b900",
    "mlserver": "#e07a5f",
}
_MARKERS = {"opexec": "o", "opexec-empty": "s", "opexec-slice": "D"}
_SHOWN_WITH = {"tiny": ("tiny", "hundred"), "echo": ("echo",)}
"""The models of a panel: 100 small inputs have a tiny output too."""
_PANELS = (("tiny", BUSY), ("echo", BUSY), ("tiny", IDLE), ("echo", IDLE))
_PANEL_TITLES = {
    ("tiny", BUSY): "tiny output, busy caller",
    ("echo", BUSY): "equal output, busy caller",
    ("tiny", IDLE): "tiny output, after 5 ms idle",
    ("echo", IDLE): "equal output, after 5 ms idle",
}


def draw(run: Run, path: Path) -> None:
    """Write the picture as PNG."""
    with pyplot.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, rows = pyplot.subplots(2, 2, figsize=(13, 10.5), sharey=True, layout="constrained")
        panels: list[Axes] = list(rows.flat)
        for panel, (model, mode) in zip(panels, _PANELS, strict=True):
            _draw_panel(run, panel, model, mode)
        handles: dict[str, Any] = {}
        for panel in panels:
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=5, frameon=False
        )
        machine = run.machine
        figure.suptitle(
            "Latency of one call: p50, with a whisker up to p99\n"
            f"{machine['cpu']}, {machine['cores usable']} cores, {machine['python']}, {run.outcome.rounds} rounds",
            fontsize=12,
        )
        figure.savefig(path, dpi=140)
        pyplot.close(figure)


def _draw_panel(run: Run, panel: Axes, model: str, mode: str) -> None:
    measured = [case for case in run.cases if case.mode == mode and case.workload.model in _SHOWN_WITH[model]]
    workloads = sorted(
        {case.workload for case in run.cases if case.workload.model in _SHOWN_WITH[model]}, key=_place
    )
    panel.set_title(_PANEL_TITLES[model, mode], loc="left", fontweight="bold")
    panel.set_yscale("log")
    drawn = [name for name in _COLORS if any(case.contender == name for case in measured)]
    for index, contender in enumerate(drawn):
        # A little apart, so that the whiskers of one size can be told from each other.
        shift = 0.035 * (index - (len(drawn) - 1) / 2)
        for model_shown in _SHOWN_WITH[model]:
            cases = [
                case for case in measured if (case.contender, case.workload.model) == (contender, model_shown)
            ]
            if cases:
                _draw_contender(
                    run, panel, contender, cases, [workloads.index(case.workload) + shift for case in cases]
                )
    floors = unit_figures(run)
    for unit, style in ((AFTER_IDLE, (0, (8, 3))),) if mode == IDLE else (("S", ":"), ("F", "--")):
        if unit in floors:
            panel.axhline(
                floors[unit].median / 1e3,
                color="black",
                linewidth=1,
                linestyle=style,
                label=_floor_title(unit),
                zorder=1,
            )
    for model_shown in _SHOWN_WITH[model]:
        copies = {
            workload: spread
            for workload, spread in copy_figures(run).items()
            if workload.model == model_shown
        }
        if copies:
            places = [workloads.index(workload) for workload in copies]
            panel.plot(
                places,
                [spread.median / 1e3 for spread in copies.values()],
                color="black",
                linewidth=1,
                linestyle="-.",
                marker="_",
                label=REGISTRY["M"].title,
                zorder=1,
            )
    titles = [
        "100 × 10x5" if workload.model == "hundred" else nbytes_title(workload) for workload in workloads
    ]
    panel.set_xticks(range(len(workloads)), titles)
    panel.yaxis.set_major_formatter(FuncFormatter(_time))
    panel.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(labelleft=True)


def _draw_contender(run: Run, panel: Axes, contender: str, cases: list[Case], places: list[float]) -> None:
    ours = REGISTRY[contender].kind == "opexec"
    found = [figures(run, case).percentiles for case in cases]
    middle = [percentiles["p50"] / 1e3 for percentiles in found]
    above = [(percentiles["p99"] - percentiles["p50"]) / 1e3 for percentiles in found]
    panel.errorbar(
        places,
        middle,
        yerr=[[0.0] * len(cases), above],
        color=_COLORS[contender],
        label=REGISTRY[contender].title,
        marker=_MARKERS.get(contender, "."),
        markersize=6 if ours else 7,
        linewidth=2.4 if ours else 1.4,
        elinewidth=0.7,
        capsize=1.5,
        zorder=3 if ours else 2,
    )


def _place(workload: Workload) -> tuple[bool, int]:
    return workload.model == "hundred", workload.nbytes


def _floor_title(unit: str) -> str:
    return "E after 5 ms idle: eventfd ping-pong" if unit == AFTER_IDLE else REGISTRY[unit].title


def _time(microseconds: float, position: int) -> str:
    if microseconds >= 1e6:
        return f"{microseconds / 1e6:g} s"
    return f"{microseconds / 1e3:g} ms" if microseconds >= 1e3 else f"{microseconds:g} µs"
