"""Runs of real models."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import pytest

from opexec import TensorSpec, bench
from opexec.bench.comparing import NOISE, QUICKER, SLOWER
from tests import slow_models
from tests.loaded import source

QUICK = bench.Settings(rounds=5, seconds=0.01, idle=0.001, idle_calls=1, warm_up=0.1, timed_calls=10)
X = {"x": TensorSpec("x", "float32", (4, 3))}
NBYTES = 4 * 3 * 4


def slow(factory: str) -> str:
    return f"{slow_models.__file__}:{factory}"


def test_isolated_beside_in_process_and_by_callers() -> None:
    steps: list[str] = []
    report = bench.run(
        source("double"), in_process=True, callers=[1, 2], shapes=X, settings=QUICK, report=steps.append
    )
    assert [result.label for result in report.results] == [
        "in process, 1 caller",
        "isolated, 1 caller",
        "in process, 2 callers",
        "isolated, 2 callers",
    ]
    assert report.complete and len([step for step in steps if step.startswith("loading")]) == 2
    here, isolated, _, two = report.results
    for result in report.results:
        assert result.latency and result.start and result.costs and result.throughput and result.after_idle
        assert len(result.rounds) == QUICK.rounds
        assert 0 < result.latency.least <= result.latency.p50 * 1.001 <= result.latency.p99 * 1.002
        assert result.after_idle.calls == QUICK.rounds
        assert (
            result.start.loads[0] > 0 and result.start.first_calls[0] > 0 and result.start.warm_up_calls > 0
        )
        assert result.inputs == {"x": "float32[4, 3]"}
        assert 0 < result.costs.caller_cpu < 1
    assert here.costs and here.costs.worker_cpu is None and here.timed == () and here.costs.copied_in == 0
    assert isolated.costs and isolated.costs.worker_cpu and 0 < isolated.costs.worker_cpu < 1
    assert (isolated.costs.copied_in, isolated.costs.copied_out) == pytest.approx((NBYTES, NBYTES), rel=0.2)
    assert isolated.costs.memory and isolated.costs.memory > 10 << 20
    assert len(isolated.timed) == 10 and isolated.pids[0] == os.getpid() != isolated.pids[1]
    assert two.timed == ()  # the same worker, called by one caller: nothing new
    assert isolated.breakdown and isolated.breakdown.total > 0
    assert report.difference(here) is None
    difference = report.difference(isolated)
    assert difference and difference.p50.value > 1


def test_a_model_with_an_added_sleep_is_slower_and_halves_of_a_run_are_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = dataclasses.replace(QUICK, rounds=10, seconds=0.02, warm_up=0.1, idle_calls=0, timed_calls=0)

    def measured(sleep: str) -> bench.Report:
        monkeypatch.setenv("OPEXEC_TEST_SLEEP", sleep)
        return bench.run(slow("sleeping"), shapes=X, settings=settings, isolation="none")

    def half(report: bench.Report, begin: int) -> bench.Report:
        (result,) = report.results
        return dataclasses.replace(
            report, results=(dataclasses.replace(result, rounds=result.rounds[begin::2]),)
        )

    before, after = measured("0.002"), measured("0.03")
    (same,) = bench.compare(half(before, 0), half(before, 1)).changes
    (changed,) = bench.compare(before, after).changes
    assert same.verdict == NOISE
    assert changed.verdict == SLOWER and changed.slower_than(1.1)
    assert bench.compare(after, before).changes[0].verdict == QUICKER


def test_an_open_loop_keeps_its_rate_or_says_that_it_did_not() -> None:
    settings = dataclasses.replace(QUICK, rounds=1, seconds=0.1, rate=50.0, idle_calls=0)
    variables = {"OPEXEC_TEST_SLEEP": "0.1"}
    report = bench.run(slow("sleeping"), shapes=X, settings=settings, env_vars=variables)
    (result,) = report.results
    # Five calls were due within 0.1 s, and each takes that long: the last one has waited for four.
    assert result.latency and result.latency.calls == 5 and result.latency.max > 0.39
    assert result.throughput and result.throughput < 11


def test_inputs_in_shared_memory_are_not_copied() -> None:
    settings = dataclasses.replace(QUICK, rounds=1, shared=True)
    (result,) = bench.run(source("double"), shapes=X, settings=settings).results
    assert result.costs and result.costs.copied_in == 0


def test_batches_and_given_inputs() -> None:
    specs = [TensorSpec("x", "float32", ("batch", 3)), TensorSpec("y", "int64", (2,))]
    settings = dataclasses.replace(QUICK, rounds=1, timed_calls=0)
    report = bench.run(
        source("echo"),
        isolation="none",
        inputs=specs,
        batches=[1, 8],
        given={"y": np.array([5, 6])},
        settings=settings,
    )
    assert [result.label for result in report.results] == ["batch 1", "batch 8"]
    assert [result.inputs["x"] for result in report.results] == ["float32[1, 3]", "float32[8, 3]"]


def test_what_fails_is_left_out_and_the_rest_goes_on() -> None:
    settings = dataclasses.replace(QUICK, rounds=2)
    sources = [source("raising_factory"), slow("failing_later"), source("double")]
    report = bench.run(sources, shapes=X, settings=settings)
    broken, later, fine = report.results
    assert not report.complete and fine.error is None and fine.latency
    assert broken.error and "the weights are gone" in broken.error and broken.latency is None
    assert later.error and "no more of this" in later.error and "\n" not in later.error


@pytest.mark.parametrize(
    "arguments",
    [{"callers": [0]}, {"batches": [0]}, {"replicas": [0]}],
)
def test_numbers_that_cannot_be_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        bench.run(source("double"), shapes=X, settings=QUICK, **arguments)


def test_an_open_size_is_told() -> None:
    specs = [TensorSpec("x", "float32", ("n", "width"))]
    (result,) = bench.run(source("double"), isolation="none", inputs=specs, settings=QUICK).results
    assert result.error and "--size width=N" in result.error


def test_starts_from_nothing() -> None:
    settings = dataclasses.replace(QUICK, rounds=1, starts=2)
    (result,) = bench.run(source("double"), shapes=X, settings=settings).results
    assert result.start and len(result.start.loads) == len(result.start.first_calls) == 2


def test_a_mapping_holds_arguments_of_load() -> None:
    settings = dataclasses.replace(QUICK, rounds=1)
    given = {"source": source("double"), "name": "mine", "isolation": "none"}
    (result,) = bench.run([given], shapes=X, settings=settings).results
    assert result.axes["isolation"] == "none"
    with pytest.raises(ValueError, match="'source'"):
        bench.run([{"name": "mine"}], settings=settings)
