"""What all pictures share: colors, scales of time, and how they are made. matplotlib is imported only where one is drawn."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .errors import OpexecError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, PALE, GREY, RED = "#1f7a8c", "#a9d0d8", "#52606d", "#d64545"
GRID = "#e4e7eb"
#: For things side by side; told apart with the usual kinds of color blindness too, and in print by their lightness.
COLORS = ("#1f7a8c", "#d64545", "#e8a33d", "#5b4b9a", "#4a9d5b", "#9aa5b1", "#8a5a2b", "#c06ca8")
_LONGEST_LABEL = 32


def check_available(otherwise: str = "") -> None:
    """Raise OpexecError unless matplotlib is installed. `otherwise`: what else can be done than to install it."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise OpexecError(
            "the plot needs matplotlib, which is not installed: pip install 'opexec[bench]'" + otherwise
        ) from None


@contextmanager
def style() -> Iterator[None]:
    """How a figure looks that is made and drawn meanwhile."""
    from matplotlib import rc_context

    with rc_context(
        {
            "font.size": 9.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "svg.hashsalt": "opexec",  # the same picture is the same file
        }
    ):
        yield


def blank(width: float, height: float) -> Figure:
    """A figure with no window; in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def drawn(figure: Figure, kind: str) -> bytes:
    """As ``"png"`` or ``"svg"``."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=140, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return picture.getvalue()


def short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else "…" + label[1 - _LONGEST_LABEL :]


def title(axis: Axes, text: str, detail: str) -> None:
    axis.set_title(text, loc="left", fontweight="bold", fontsize=10)
    axis.set_xlabel(detail, color=GREY)


def note(axis: Axes, row: float, text: str, color: str = GREY) -> None:
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


def scale_of_times(axis: Axis, measured: Sequence[float]) -> None:
    """Ticks of a logarithmic axis over seconds, around what was measured."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if not measured:
        axis.set_ticks([])
        return
    low, high = min(measured) / 1.5, max(measured) * 1.5
    limit = axis.axes.set_xlim if axis is axis.axes.xaxis else axis.axes.set_ylim
    limit(low, high)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(time_text))


def time_text(seconds: float, position: Any = None) -> str:
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit * 0.9999 or name == "µs":
            return f"{seconds / unit:.3g} {name}"
    return ""
