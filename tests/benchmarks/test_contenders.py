"""Every floor and peer does what it is measured for, and takes everything with it when it is closed."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks import models
from benchmarks.contender import REGISTRY, Options
from benchmarks.driver_process import DriverProcess
from benchmarks.floors.paired import parse_cpus, two_cores
from benchmarks.grid import BUSY, IDLE, SMALLEST, settings
from benchmarks.peers import packing
from benchmarks.peers.pipe_shared_memory import NAME_PREFIX
from benchmarks.sampling import Plan
from benchmarks.workloads import HUNDRED_NBYTES, SIZES, Workload

OPTIONS = Options(worker_python="3.13")
WORKLOADS = [
    SMALLEST,
    Workload("tiny", 4096),
    Workload("echo", 128 * 1024),
    Workload("hundred", HUNDRED_NBYTES),
]
FEW = Plan(budget_ns=0, warm_ns=0, warm_least=1, least=5)


def peers():
    """Those that open quickly; the ones with an environment of their own after everything else, as it may have to be built."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] if entry.requirements else [])
        for name, entry in REGISTRY.items()
        if entry.kind == "peer" and not entry.heavy
    ]


@pytest.fixture
def driver():
    made = []

    def make(contender):
        made.append(DriverProcess(contender, OPTIONS))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.mark.parametrize("peer", ["plain", *peers()])
def test_a_peer_answers_every_workload_as_the_model_does(driver, peer):
    one = driver(peer)
    for workload in WORKLOADS:
        one.open(workload)  # verifies an answer
        assert len(one.measure(FEW)) == 5
        partners = one.descendants()
        assert bool(partners) == (REGISTRY[peer].kind == "peer")
        if workload == SMALLEST:
            nanoseconds = one.stream(20, 8)  # verifies the last answer
            assert nanoseconds is None or nanoseconds > 0
        one.close()
        assert not any(psutil.pid_exists(process.pid) for process in partners)
    assert not list(Path("/dev/shm").glob(f"{NAME_PREFIX}{one.process.pid}_*"))


@pytest.mark.parametrize("floor", ["S", "F", "E", "M", "spin-copy"])
def test_a_floor_runs_and_is_parked_in_between(driver, floor):
    one = driver(floor)
    one.open(SMALLEST)
    for _ in range(3):
        assert len(one.measure(FEW)) == 5
        for partner in one.descendants():
            while partner.status() != psutil.STATUS_SLEEPING:  # for ever, if it spins on
                pass
    one.close()


@pytest.mark.parametrize("model", ["tiny", "hundred"])
def test_m_takes_the_bytes_of_the_workload(driver, model):
    one = driver("M")
    one.open(Workload(model, HUNDRED_NBYTES))
    assert len(one.measure(FEW)) == 5


def test_the_models_are_valid_for_python_3_7():
    ast.parse(Path(models.__file__).read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("nbytes", SIZES[:3])
def test_a_workload_has_the_bytes_it_says(nbytes):
    for workload in (Workload("echo", nbytes), Workload("tiny", nbytes)):
        assert sum(array.nbytes for array in workload.inputs().values()) == nbytes


def test_a_hundred_inputs_of_ten_by_five():
    inputs = Workload("hundred", HUNDRED_NBYTES).inputs()
    assert {array.shape for array in inputs.values()} == {(10, 5)}
    assert len(inputs) == 100
    assert sum(array.nbytes for array in inputs.values()) == HUNDRED_NBYTES


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_the_plain_models_answer_passes_its_own_check(workload):
    inputs = workload.inputs()
    answer = workload.load()(**inputs)["y"]
    workload.check(answer, inputs)
    for wrong in (answer + 1, answer.astype(np.float64), np.concatenate([answer, answer]), answer.tolist()):
        with pytest.raises(ValueError):
            workload.check(wrong, inputs)


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_packed_inputs_come_out_as_they_went_in(workload):
    buffer = bytearray(workload.nbytes)
    inputs = workload.inputs()
    packing.writer(workload, buffer)(inputs)
    views = packing.views(workload, buffer)
    assert list(views) == list(inputs)
    assert all(np.array_equal(views[name], inputs[name]) for name in inputs)
    assert all(np.shares_memory(view, np.frombuffer(buffer, np.uint8)) for view in views.values())


@pytest.mark.parametrize("text, cpus", [("0", {0}), ("0,4", {0, 4}), ("0-2,7\n", {0, 1, 2, 7})])
def test_the_kernels_lists_of_processors(text, cpus):
    assert parse_cpus(text) == cpus


def test_one_usable_core_is_not_two():
    assert two_cores({0}) is None
    assert two_cores({0, 10**6}) == (0, 10**6)


def test_quick_and_full_plans_have_both_modes():
    for quick in (False, True):
        plans = settings(quick=quick)
        assert {BUSY, IDLE} <= plans.case_plans.keys() & plans.floor_plans.keys()
