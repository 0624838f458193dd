"""The table that the demo ends with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table
from rich.text import Text

import opexec


@dataclass(frozen=True)
class Row:
    """One way to run the model: what ran it, what it read, milliseconds of each call, and their ratio to the calls in process."""

    worker: opexec.WorkerInfo
    answer: str
    milliseconds: npt.NDArray[np.float64]
    ratios: npt.NDArray[np.float64]


def table(rows: list[Row], model: str, picture: str, array: npt.NDArray[Any]) -> Table:
    shape = " x ".join(map(str, array.shape))
    drawn = Table(
        title=f"{model} reads {picture} ({shape} {array.dtype}, {array.nbytes / 1e3:,.0f} kB)",
        caption=(
            f"{len(rows[0].milliseconds)} calls each, in turn, one thread each. Overhead: the median over rounds of the call's time against "
            "that of the call in this process; with another onnxruntime, its own speed is in it."
        ),
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    drawn.add_column("runs in", no_wrap=True)
    drawn.add_column("Python", no_wrap=True)
    drawn.add_column("onnx-\nruntime", no_wrap=True)
    drawn.add_column("numpy", no_wrap=True)
    drawn.add_column("answer", style="bold")
    for name in ("p50\nms", "p99\nms", "over-\nhead"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        here = row.worker.pid == os.getpid()
        drawn.add_row(
            "this process" if here else "a worker",
            row.worker.python,
            row.worker.framework_version,
            row.worker.numpy,
            Text(row.answer),
            *(f"{value:.2f}" for value in np.percentile(row.milliseconds, [50, 99])),
            "" if here else f"{100 * (np.median(row.ratios) - 1):+.1f} %",
        )
    return drawn
