"""The report says what the run found, in JSON, Markdown and a picture."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from matplotlib import image

from benchmarks import goals, grid, plot, report
from benchmarks.contender import REGISTRY
from benchmarks.grid import IDLE, SIZES
from benchmarks.idle import IdleCpu
from benchmarks.rounds import Measurement, Outcome, units_of
from benchmarks.workloads import Workload

ROUNDS = 9
UNITS = {"S": 800, "F": 3_500, "E": 17_000, "M": 1_000, "E idle": 110_000, "R": 12_000, "B": 180_000_000}


def run_of(cases, rounds=ROUNDS):
    """A made-up run in which opexec takes 12 µs, everybody else much longer."""
    draw = random.Random(1)
    measurements = []
    for number in range(rounds):
        for case in cases:
            base = 12_000 if REGISTRY[case.contender].kind == "opexec" else 100_000
            if case.mode == IDLE:
                base *= 10
            if case.contender == "opexec-load":
                base = 250_000_000
            samples = np.array([round(base * draw.uniform(1, 1.2)) for _ in range(20)])
            measurements.append(
                Measurement(case, number, samples, {unit: UNITS[unit] for unit in units_of(case)})
            )
    outcome = Outcome(measurements, {"zmq": {"pyzmq": "27.0"}}, {}, {}, rounds)
    idle = [IdleCpu("opexec", 10.0, 0.0, 0.0001, 0.0), IdleCpu("zmq", 10.0, 0.1, 0.1, 0.1)]
    machine = {"cpu": "A | B", "cores usable": 2, "python": "CPython 3.11", "packages": {"numpy": "2.0"}}
    return report.Run("python -m benchmarks latency", "2026-01-01", machine, grid.settings(), outcome, idle)


@pytest.fixture(scope="module")
def run():
    return run_of(grid.cases(SIZES))


def test_the_json_has_every_case_with_its_rounds_and_ratios(run):
    data = json.loads(json.dumps(report.to_json(run)))
    assert len(data["cases"]) == len(grid.cases(SIZES))
    for case in data["cases"]:
        assert len(case["rounds"]) == ROUNDS
        assert case["samples"] == ROUNDS * 20
        assert case["percentiles_ns"].keys() == {"p50", "p90", "p99", "p99.9"}
        assert all(ratio["low"] <= ratio["median"] <= ratio["high"] for ratio in case["ratios"].values())
    assert data["contenders"]["zmq"]["facts"] == {"pyzmq": "27.0"}
    assert data["machine"]["cores usable"] == 2
    assert {idle["contender"] for idle in data["idle"]} == {"opexec", "zmq"}


def test_percentiles_are_over_the_samples_of_all_rounds(run):
    case = grid.cases(SIZES)[1]
    pooled = np.concatenate([m.samples for m in run.outcome.of(case)])
    assert report.figures(run, case).percentiles["p99.9"] == pooled.max()
    assert report.figures(run, case).samples == len(pooled)


def test_the_markdown_has_a_verdict_on_every_goal(run):
    text = report.to_markdown(run, "results.png")
    for verdict in goals.judge(run.outcome, run.idle):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {verdict.title} |")]
        assert line.endswith(f"| {verdict.verdict} |")
        assert verdict.verdict != goals.NOT_MEASURED
    assert "![p50 and p99 by size](results.png)" in text
    assert "decides nothing" not in text


def test_every_table_of_the_markdown_is_well_formed(run):
    lines = report.to_markdown(run, "results.png").splitlines()
    table = None
    for line in lines:
        columns = line.replace("\\|", "").count("|") if line.startswith("|") else None
        assert columns is None or table is None or columns == table, line
        table = columns


def test_too_few_rounds_are_said():
    few = run_of(grid.cases((64,)), rounds=2)
    assert "decides nothing" in report.to_markdown(few, "results.png")


def test_what_could_not_run_is_said():
    some = run_of(grid.cases((64,), ["pipe/*"]))
    some.outcome.unavailable["zmq"] = "needs the package 'zmq'"
    some.outcome.failures["executor"] = "executor: it died\nlast line"
    text = report.to_markdown(some, "results.png")
    assert "pyzmq ipc cannot run here: needs the package 'zmq'" in text
    assert "last line" in text
    assert report.to_json(some)["contenders"]["executor"]["failure"] == "executor: it died\nlast line"


@pytest.mark.parametrize("patterns", [[], ["pipe/echo/64/busy"], ["opexec-load/*"]], ids=str)
def test_the_picture_is_drawn_whatever_was_measured(tmp_path, patterns):
    plot.draw(run_of(grid.cases(SIZES, patterns), rounds=2), tmp_path / "results.png")
    pixels = image.imread(tmp_path / "results.png")
    assert pixels.shape[0] > 800 and pixels.shape[1] > 800
    assert len({tuple(pixel) for pixel in pixels[::7, ::7].reshape(-1, pixels.shape[2])}) > 10


@pytest.mark.parametrize(
    "nbytes, title",
    [
        (64, "64 B"),
        (4096, "4 KiB"),
        (20_000, "20 kB"),
        (602_112, "588 KiB"),
        (6_912_000, "6.91 MB"),
        (2**26, "64 MiB"),
    ],
)
def test_sizes_read_well(nbytes, title):
    assert report.nbytes_title(Workload("tiny", nbytes)) == title


@pytest.mark.parametrize("nanoseconds, text", [(730, "0.73"), (12_340, "12.3"), (1_234_567, "1,235")])
def test_times_have_three_digits_that_count(nanoseconds, text):
    assert report.us(nanoseconds) == text
