"""Percentiles and spreads are what their names say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ratios import PERCENTILES, Spread, percentiles

nanoseconds = st.lists(st.integers(1, 2**40), min_size=1, max_size=300)
ratios = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30)


def test_percentiles_of_one_to_a_thousand():
    samples = np.arange(1000, 0, -1)
    assert percentiles(samples) == {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999}


@given(nanoseconds)
def test_a_percentile_is_the_smallest_sample_that_covers_its_share(taken):
    samples = np.array(taken, np.int64)
    for name, value in percentiles(samples).items():
        needed = PERCENTILES[name] * len(samples)
        assert value in taken
        assert np.sum(samples <= value) >= needed
        assert np.sum(samples < value) < needed


@given(nanoseconds)
def test_percentiles_do_not_depend_on_the_order(taken):
    assert percentiles(np.array(taken)) == percentiles(np.array(sorted(taken)))


def test_nothing_has_no_percentiles():
    with pytest.raises(ValueError, match="at least one sample"):
        percentiles(np.array([], np.int64))


def test_spread_of_nine_rounds():
    spread = Spread.of([9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0])
    assert spread == Spread(median=5.0, low=3.0, high=7.0, minimum=1.0, maximum=9.0, rounds=9)


@given(ratios)
def test_a_spread_is_ordered_and_its_middle_half_holds_half_of_the_rounds(values):
    spread = Spread.of(values)
    assert (
        min(values)
        == spread.minimum
        <= spread.low
        <= spread.median
        <= spread.high
        <= spread.maximum
        == max(values)
    )
    assert sum(value <= spread.median for value in values) >= len(values) / 2
    assert sum(spread.low <= value <= spread.high for value in values) >= len(values) / 2 - 1


def test_nothing_has_no_spread():
    with pytest.raises(ValueError, match="at least one round"):
        Spread.of([])
