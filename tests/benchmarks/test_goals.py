"""A verdict follows from the medians of the rounds' ratios, and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import goals
from benchmarks.goals import AIM_MET, MET, MUST_MET, NOT_MEASURED, NOT_MET
from benchmarks.grid import BUSY, IDLE, SMALLEST, START, Case
from benchmarks.idle import IdleCpu
from benchmarks.rounds import Measurement, Outcome
from benchmarks.workloads import HUNDRED_NBYTES, Workload

BUSY_64 = Case(SMALLEST, "opexec", BUSY)


def outcome(*rows):
    """Of rows (case, [p50 of each round], [units of each round])."""
    measurements = [
        Measurement(case, number, np.array([p50]), units)
        for case, p50s, all_units in rows
        for number, (p50, units) in enumerate(zip(p50s, all_units, strict=True))
    ]
    return Outcome(measurements=measurements, rounds=max((m.round + 1 for m in measurements), default=0))


def verdict(found, title, idle=()):
    (line,) = [line for line in goals.judge(found, idle) if line.title.startswith(title)]
    return line


def test_nothing_measured_is_nothing_met():
    assert {line.verdict for line in goals.judge(Outcome(), [])} == {NOT_MEASURED}


@pytest.mark.parametrize(
    "p50, expected",
    [(10_000, AIM_MET), (12_000, MUST_MET), (18_000, MUST_MET), (18_001, NOT_MET)],
)
def test_the_first_goal_in_s(p50, expected):
    units = {"S": 1_000, "F": 1}
    assert verdict(outcome((BUSY_64, [p50], [units])), "64 B in and out").verdict == expected


@pytest.mark.parametrize(
    "units, expected",
    [
        ({"S": 1, "F": 3_000}, AIM_MET),
        ({"S": 1_000, "F": 1}, AIM_MET),
        ({"S": 1, "F": 1_700}, MUST_MET),
        ({"S": 556, "F": 1}, MUST_MET),
        ({"S": 555, "F": 1_666}, NOT_MET),
    ],
)
def test_a_line_in_s_and_f_is_met_if_it_holds_in_either(units, expected):
    assert verdict(outcome((BUSY_64, [10_000], [units])), "64 B in and out").verdict == expected


def test_the_figure_is_the_median_of_the_rounds_ratios():
    # The medians of p50s and of floors alone would give 100 / 10; the rounds' ratios are 2, 10 and 40.
    found = outcome((BUSY_64, [100, 100, 400], [{"S": 50}, {"S": 10}, {"S": 10}]))
    spread = goals.ratios(found.of(BUSY_64), goals.Bound(("S",), 30, 15))
    assert (spread.median, spread.minimum, spread.maximum) == (10.0, 2.0, 40.0)


def test_copy_plus_small_call_is_the_unit_of_a_large_copied_call():
    case = Case(Workload("tiny", 6_912_000), "opexec", BUSY)
    found = outcome((case, [1_130], [{"M": 1_000, "R": 100, "S": 1, "F": 1}]))
    line = verdict(found, "6.9 MB numpy input")
    assert line.measured.startswith("1.03 ")
    assert line.verdict == AIM_MET


def test_a_large_call_from_empty_is_compared_with_the_small_call():
    case = Case(Workload("tiny", 64 * 2**20), "opexec-slice", BUSY)
    line = verdict(outcome((case, [108], [{"R": 100}])), "64 MiB input from a slice")
    assert line.verdict == MUST_MET


def test_a_hundred_inputs():
    case = Case(Workload("hundred", HUNDRED_NBYTES), "opexec", BUSY)
    line = verdict(outcome((case, [90_000], [{"S": 500, "F": 900}])), "100 float32 inputs")
    assert line.verdict == MUST_MET


def test_after_idle_is_compared_with_the_eventfd_after_idle():
    case = Case(SMALLEST, "opexec", IDLE)
    line = verdict(outcome((case, [190], [{"E": 1, "E idle": 100}])), "64 B after 5 ms idle")
    assert line.verdict == MUST_MET


def test_ahead_of_peers_means_in_every_case():
    units = [{"S": 1}] * 3
    large = Case(Workload("tiny", 4096), "opexec-empty", IDLE)
    rows = [
        (BUSY_64, [10, 10, 10], units),
        (Case(SMALLEST, "pipe", BUSY), [20, 20, 20], units),
        (large, [10, 30, 10], units),
        (Case(large.workload, "zmq", IDLE), [20, 20, 20], units),
    ]
    assert verdict(outcome(*rows), "every size").verdict == MET
    rows[3] = (rows[3][0], [20, 5, 5], units)
    line = verdict(outcome(*rows), "every size")
    assert line.verdict == NOT_MET
    assert "1 of 2" in line.measured and "zmq" in line.measured


def test_peers_are_compared_on_the_same_workload_in_the_same_mode_only():
    units = [{"S": 1}]
    found = outcome(
        (BUSY_64, [10], units),
        (Case(SMALLEST, "pipe", IDLE), [1], units),
        (Case(Workload("tiny", 64), "pipe", BUSY), [1], units),
        (Case(SMALLEST, "plain", BUSY), [1], units),
    )
    assert goals.compare_peers(found) == []


@pytest.mark.parametrize(
    "ticks, clock, expected",
    [(0.0, 0.0, AIM_MET), (0.1, 0.05, MUST_MET), (0.0, 0.3, NOT_MET), (0.3, 0.0, NOT_MET)],
)
def test_the_idle_worker(ticks, clock, expected):
    idle = [IdleCpu("opexec", 10.0, ticks, clock, 50.0), IdleCpu("zmq", 10.0, 90.0, 90.0, 90.0)]
    assert verdict(Outcome(), "worker idle", idle).verdict == expected


@pytest.mark.parametrize("extra_ms, expected", [(150, MET), (151, NOT_MET)])
def test_load_is_judged_by_what_it_adds_to_a_bare_start(extra_ms, expected):
    bare = 200_000_000
    found = outcome((Case(SMALLEST, "opexec-load", START), [bare + extra_ms * 1_000_000], [{"B": bare}]))
    assert verdict(found, "worker ready").verdict == expected


def test_copying_both_ways_is_compared_with_two_copies():
    case = Case(Workload("echo", 6_912_000), "opexec", BUSY)
    line = verdict(outcome((case, [2_160], [{"M": 1_000}])), "6.9 MB in and out")
    assert line.must == "≤ 1.1 2 M" and line.verdict == MUST_MET


def test_the_fastest_peer_may_or_may_not_keep_a_core_busy():
    units = [{"S": 1}] * 3
    found = outcome(
        (BUSY_64, [10, 10, 10], units),
        (Case(SMALLEST, "iceoryx2", BUSY), [40, 20, 60], units),
        (Case(SMALLEST, "pipe-shm", BUSY), [100, 90, 200], units),
        (Case(SMALLEST, "zmq", BUSY), [300, 80, 150], units),
    )
    sleepers = verdict(found, "64 B, against the fastest peer that")
    assert sleepers.measured.startswith("10 [9 .. 12.5] x") and sleepers.verdict == MUST_MET
    assert "pipe-shm, zmq" in sleepers.measured
    everybody = verdict(found, "64 B, against the fastest peer of all")
    assert everybody.measured.startswith("4 ") and "(iceoryx2)" in everybody.measured


def test_the_tail_is_of_the_same_round():
    samples = [np.array([10] * 99 + [most]) for most in (10, 10, 10)]
    measurements = [Measurement(BUSY_64, number, each, {}) for number, each in enumerate(samples)]
    assert verdict(Outcome(measurements=measurements, rounds=3), "64 B, busy caller: p99").verdict == AIM_MET
