"""Percentiles and intervals, against distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from opexec.bench.statistics import Latency, paired, unpaired

TIMES = st.lists(st.integers(1, 60_000_000_000), min_size=1, max_size=300)


@given(TIMES)
@settings(max_examples=25)
def test_percentiles_are_those_of_the_times_to_three_digits(times: list[int]) -> None:
    found = Latency.of(np.array(times, np.int64))
    ordered = sorted(times)
    for percent, value in ((50, found.p50), (90, found.p90), (99, found.p99), (99.9, found.p999)):
        # HdrHistogram's percentile is the least time that so many calls did not exceed.
        right = ordered[max(int(percent / 100 * len(ordered) + 0.5), 1) - 1]
        assert value == pytest.approx(right / 1e9, rel=2e-3)
    assert found.calls == len(times)
    assert (found.least, found.max) == (min(times) / 1e9, max(times) / 1e9)
    assert found.mean == pytest.approx(np.mean(times) / 1e9)
    assert found.least <= found.p50 * 1.001 and found.p50 <= found.p90 <= found.p99 <= found.p999


@given(TIMES)
@settings(max_examples=25)
def test_the_encoded_histogram_holds_every_call(times: list[int]) -> None:
    decoded = HdrHistogram.decode(Latency.of(np.array(times, np.int64)).histogram)
    assert decoded.get_total_count() == len(times)
    assert decoded.get_max_value() == pytest.approx(max(times), rel=2e-3)


def test_the_curve_rises_and_ends_where_calls_end() -> None:
    times = np.random.default_rng(0).lognormal(10, 1, 20_000).astype(np.int64)
    curve = Latency.of(times).curve()
    shares, seconds = zip(*curve)
    assert list(shares) == sorted(shares) and list(seconds) == sorted(seconds)
    assert 99.99 < shares[-1] < 100
    at_90 = min(curve, key=lambda point: abs(point[0] - 90))[1]
    assert at_90 == pytest.approx(np.percentile(times, 90) / 1e9, rel=0.01)


def test_longer_than_an_hour_counts_as_an_hour_in_percentiles_only() -> None:
    found = Latency.of(np.array([10**13], np.int64))
    assert found.p50 == pytest.approx(3600, rel=2e-3) and found.max == 10_000


def test_no_times_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Latency.of(np.array([], np.int64))


# ---- intervals

ROUNDS = st.lists(st.floats(1e-6, 10), min_size=5, max_size=30)


@given(ROUNDS, st.floats(0.01, 100))
@settings(max_examples=30)
def test_a_constant_factor_is_found_exactly(rounds: list[float], factor: float) -> None:
    found = paired([factor * each for each in rounds], rounds)
    assert found.value == pytest.approx(factor)
    assert found.low == pytest.approx(factor) and found.high == pytest.approx(factor)


@given(ROUNDS, ROUNDS, st.floats(0.01, 100))
@settings(max_examples=20)
def test_intervals_hold_their_value_and_scale_with_the_unit(
    a: list[float], b: list[float], unit: float
) -> None:
    found, scaled = unpaired(a, b), unpaired([unit * each for each in a], b)
    assert found.low <= found.value <= found.high
    assert scaled.value == pytest.approx(unit * found.value)
    assert (scaled.low, scaled.high) == pytest.approx((unit * found.low, unit * found.high))


@pytest.mark.parametrize("rounds, true", [(5, 1.0), (12, 1.25)])
def test_intervals_hold_the_true_ratio_as_often_as_they_say(rounds: int, true: float) -> None:
    random = np.random.default_rng(rounds)
    held = 0
    for trial in range(100):
        # What disturbs a round meets both, and each has a noise of its own.
        common = random.lognormal(0, 0.5, rounds)
        base = common * random.lognormal(0, 0.1, rounds)
        those = common * true * random.lognormal(0, 0.1, rounds)
        found = paired(those, base, trial)
        held += found.low <= true <= found.high
    assert held >= 87  # of 95 %: a bootstrap of few medians is a little too sure


def test_pairing_takes_out_what_meets_both() -> None:
    random = np.random.default_rng(1)
    drift = random.lognormal(0, 1.0, 12)
    those, base = 1.1 * drift * random.lognormal(0, 0.01, 12), drift * random.lognormal(0, 0.01, 12)
    assert paired(those, base).beyond_noise
    assert not unpaired(those, base).beyond_noise


def test_few_rounds_prove_nothing() -> None:
    found = paired([2.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0])
    assert (found.value, found.low, found.high) == (2.0, 0.0, float("inf")) and not found.beyond_noise
    assert not unpaired([2.0] * 4, [1.0] * 40).beyond_noise


@pytest.mark.parametrize("those, base", [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_pair_are_refused(those: list[float], base: list[float]) -> None:
    with pytest.raises(ValueError, match="rounds"):
        paired(those, base)
