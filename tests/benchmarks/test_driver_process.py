"""A contender's process answers, and never stays behind, whatever happens in it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks import driver_process
from benchmarks.contender import REGISTRY, Entry, Options, Unavailable
from benchmarks.driver_process import ContenderFailed, DriverProcess
from benchmarks.grid import SMALLEST
from benchmarks.sampling import Plan
from benchmarks.workloads import Workload

OPTIONS = Options(worker_python="3.13")
FEW = Plan(budget_ns=0, warm_ns=0, warm_least=0, least=5)


@pytest.fixture
def driver(monkeypatch):
    """Makes a driver of a contender, registered or faulty; ends it at the end."""
    made = []
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    def make(name):
        if name not in REGISTRY:
            monkeypatch.setitem(REGISTRY, name, Entry(f"faulty_contenders:{name}", name, "peer"))
        made.append(DriverProcess(name, OPTIONS))
        return made[-1]

    yield make
    for one in made:
        one.end()


def wait_until_gone(pids):
    """For ever, if one of them lives on; the limit of the test ends it."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            while process.status() != psutil.STATUS_ZOMBIE:
                pass


def test_a_wrong_answer_is_never_measured(driver):
    with pytest.raises(ContenderFailed, match="wrong numbers"):
        driver("Liar").open(SMALLEST)


def test_a_contender_that_cannot_run_says_why(driver):
    with pytest.raises(Unavailable, match="needs a thing"):
        driver("Absent").open(SMALLEST)


def test_a_missing_package_is_named(driver, monkeypatch):
    monkeypatch.setitem(REGISTRY, "nowhere", Entry("package_that_is_nowhere:Peer", "", "peer"))
    with pytest.raises(Unavailable, match="package_that_is_nowhere"):
        driver("nowhere").open(SMALLEST)


def test_a_death_is_reported_with_the_last_words(driver):
    with pytest.raises(ContenderFailed, match=r"(?s)died at 'open'.*last words"):
        driver("Suicide").open(SMALLEST)


def test_a_process_left_behind_by_close_is_reported_and_killed(driver, monkeypatch):
    monkeypatch.setattr(driver_process, "END_WITHIN_S", 0.1)
    one = driver("Litterer")
    pid = int(one.open(SMALLEST)["child"])
    with pytest.raises(ContenderFailed, match=f"still running after close.*{pid} sleep"):
        one.close()
    wait_until_gone([pid])


def test_a_failed_driver_can_be_opened_again(driver, monkeypatch):
    one = driver("Liar")
    with pytest.raises(ContenderFailed):
        one.open(SMALLEST)
    monkeypatch.setitem(REGISTRY, "Liar", REGISTRY["plain"])
    one.open(SMALLEST)
    assert len(one.measure(FEW)) == 5


@pytest.mark.parametrize("contender", ["S", "F", "E", "pipe", "executor", "queue"])
def test_partners_die_with_a_driver_that_is_killed(driver, contender):
    one = driver(contender)
    one.open(SMALLEST)
    partners = [process.pid for process in one.descendants()]
    assert partners
    one.process.kill()
    with pytest.raises(ContenderFailed, match="died"):
        one.measure(FEW)
    wait_until_gone(partners)


def test_samples_come_back_whole(driver):
    one = driver("plain")
    one.open(Workload("tiny", 4096))
    samples = one.measure(Plan(budget_ns=10**12, warm_ns=0, warm_least=0, most=2_000))
    assert samples.dtype == np.int64
    assert samples.shape == (2_000,)
    assert samples.min() >= 1
