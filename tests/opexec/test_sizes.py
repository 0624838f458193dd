"""Sizes and times as people write and read them."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opexec import sizes
from opexec.memory import parse_size

NOW = datetime.datetime(2026, 1, 31, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (10 << 20, "10.0 MiB"),
     ((1 << 20) - 1, "1024 KiB"), (999 << 20, "999 MiB"), (5 << 40, "5.00 TiB")],
)  # fmt: skip
def test_sizes_have_three_digits(size: int, text: str) -> None:
    assert sizes.text(size) == text


@given(st.integers(1024, 1 << 45))
def test_a_size_can_be_read_back(size: int) -> None:
    assert parse_size(sizes.text(size)) == pytest.approx(size, rel=0.006)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * 86400), ("12 h", 43200), ("90m", 5400), ("45s", 45), ("1.5w", 907200)]
)
def test_spans_of_time(text: str, seconds: float) -> None:
    assert sizes.parse_span(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y", "1e3d", "²d", "9" * 400 + "w"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="30d"):
        sizes.parse_span(text)


@pytest.mark.parametrize(
    ("past", "text"),
    [(0, "just now"), (59, "just now"), (60, "1 min ago"), (3599, "59 min ago"), (7200, "2 h ago"), (86400 * 40, "40 d ago"), (-5, "just now")],
)  # fmt: skip
def test_how_long_ago(past: float, text: str) -> None:
    assert sizes.ago(NOW - datetime.timedelta(seconds=past), NOW) == text
