"""A call does not get slower: ratios to a floor measured beside it, with bounds so wide that only a real loss exceeds them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.contender import Options
from benchmarks.driver_process import DriverProcess
from benchmarks.grid import SMALLEST
from benchmarks.sampling import Plan
from benchmarks.workloads import HUNDRED_NBYTES, Workload

OPTIONS = Options(".".join(map(str, sys.version_info[:2])))  # of a Python that is certainly there
SHORT = Plan(budget_ns=25_000_000, warm_ns=5_000_000, most=2_000)
ROUNDS = 40

BOUNDS = [
    pytest.param("opexec", SMALLEST, 16, id="64 B"),
    pytest.param("opexec-empty", Workload("tiny", 6_912_000), 16, id="6.9 MB from empty"),
    pytest.param("opexec", Workload("hundred", HUNDRED_NBYTES), 160, id="100 inputs"),
]
"""Contender, workload, and how many times F its call may take: more than twice what the goals allow."""


@pytest.fixture(scope="module")
def floor():
    driver = DriverProcess("F", OPTIONS)
    driver.open(SMALLEST)
    yield driver
    driver.close()
    driver.end()


def quickest(driver):
    """What a call takes when nobody else is on the cores, which on a loaded machine is not what most of them take."""
    return float(driver.measure(SHORT).min())


@pytest.mark.parametrize("contender, workload, most", BOUNDS)
def test_a_call_takes_no_more_than_so_many_times_the_least_that_it_could(floor, contender, workload, most):
    # In any round: beside other work the two sides can be put to sleep between all calls of a round, which says nothing of the call.
    driver = DriverProcess(contender, OPTIONS)
    ratios = []
    try:
        driver.open(workload)
        while len(ratios) < ROUNDS and min(ratios, default=np.inf) > most:
            ratios.append(quickest(driver) / quickest(floor))
        driver.close()
    finally:
        driver.end()
    assert min(ratios) <= most, f"expected at most {most} F in one of {ROUNDS} rounds, got {ratios}"
