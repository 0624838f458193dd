"""Sizes and times for people."""

from __future__ import annotations

import datetime
import re

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SHORT = ((86400, "d"), (3600, "h"), (60, "min"))


def text(size: int) -> str:
    """Bytes with a unit of 1024's powers and three digits: ``"1.25 GiB"``."""
    for unit, name in _UNITS:
        if size >= unit:
            # 1023.6 of a unit would be written with four digits, or as 1e+03.
            return f"{size / unit:.0f} {name}" if size / unit >= 99.95 else f"{size / unit:#.3g} {name}"
    return f"{size} B"


def duration(seconds: float) -> str:
    """A time with three digits: ``"1.25 ms"``."""
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit * 0.9995 or name == "µs":
            value = seconds / unit
            return f"{value:.0f} {name}" if value >= 99.95 else f"{value:#.3g} {name}"
    raise AssertionError


def parse_span(text: str) -> datetime.timedelta:
    """A span of time from ``"30d"``, ``"12h"``, ``"90m"``, ``"45s"`` or ``"2w"``. Raises ValueError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text, re.ASCII)
    if match is None:
        raise ValueError(f"expected a number and a unit: 30d, 12h, 90m, 45s or 2w; got {text!r}")
    try:
        return datetime.timedelta(seconds=float(match[1]) * _SPANS[match[2]])
    except OverflowError:
        raise ValueError(
            f"expected a span such as 30d; got one too long to count, {text[:20]!r}..."
        ) from None


def ago(time: datetime.datetime, now: datetime.datetime | None = None) -> str:
    """``"5 min ago"``: how long since, in the largest unit that fits."""
    seconds = ((now or datetime.datetime.now(datetime.timezone.utc)) - time).total_seconds()
    for unit, name in _SHORT:
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name} ago"
    return "just now"
