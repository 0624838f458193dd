"""The rule by which a model is warm."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opexec.bench.warming import WINDOW_SECONDS, WarmUp


def calls_until_warm(seconds: list[float]) -> int | None:
    warming = WarmUp()
    return next((number for number, each in enumerate(seconds, 1) if warming.add(each)), None)


@given(st.floats(1e-4, 1.0))
@settings(max_examples=40)
def test_constant_calls_are_warm_after_four_windows(seconds: float) -> None:
    window = max(3, math.ceil(WINDOW_SECONDS / seconds))
    found = calls_until_warm([seconds] * (5 * window + 10))
    assert found is not None and 4 * window <= found <= 4 * (window + 1)


@given(st.integers(0, 2**32), st.floats(0.01, 0.3))
@settings(max_examples=40)
def test_noise_does_not_keep_it_waiting(seed: int, spread: float) -> None:
    noise = random.Random(seed)
    warming = WarmUp()
    while not warming.warm:
        warming.add(0.01 * noise.lognormvariate(0, spread))
        assert warming.calls < 400


@pytest.mark.parametrize("cold", [2, 20, 100])
def test_it_is_not_warm_while_calls_get_faster(cold: int) -> None:
    """Each window of five calls takes a tenth less than the one before, down to a steady 10 ms."""
    seconds = [max(0.01 * 1.1 ** (cold - number // 5), 0.01) for number in range(5 * cold + 200)]
    found = calls_until_warm(seconds)
    assert found is not None and seconds[found - 1] == 0.01


def test_it_counts_what_it_was_told() -> None:
    warming = WarmUp()
    for _ in range(7):
        warming.add(0.5)
    assert (warming.calls, warming.seconds, warming.warm) == (7, 3.5, False)
