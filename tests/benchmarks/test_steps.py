"""The steps of a call, each side after the other in one thread: they are those of a call, and nothing stays changed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.results import pictures
from benchmarks.scenarios import one_thread, opened, steps
from benchmarks.scenarios.one_thread import STEPS, UNHURRIED
from benchmarks.scenarios.prices import prices
from benchmarks.scenarios.result import Settings
from opexec.ipc.packer import Packer
from opexec.ipc.ring import Producer

X = {"x": np.arange(16, dtype=np.float32)}


@pytest.fixture(scope="module")
def turns():
    with opened.load("echo", env=None) as model, one_thread.opened(model) as turns:
        yield turns


def test_a_call_gives_what_the_model_gives(turns):
    for _ in range(5):
        answer = turns.call(X)
        assert list(answer) == ["y"] and np.array_equal(answer["y"], X["x"])
    kept = [turns.call(X)["y"] for _ in range(3)]
    assert len({array.__array_interface__["data"][0] for array in kept}) == 3


def test_each_step_takes_its_time_and_calls_something(turns):
    plain = Packer.pack_again, Producer.publish
    times, counts = turns.times(X, 50), turns.counts(X)
    assert tuple(times) == tuple(counts) == STEPS
    assert all(nanoseconds > 0 for step, nanoseconds in times.items() if step not in ("enter", "run"))
    assert counts["run"]["Python"] >= 1 and counts["enter"]["Python"] == 1
    assert all(sum(counts[step].values()) for step in STEPS)
    assert (Packer.pack_again, Producer.publish) == plain


def test_operations_have_a_price():
    found = prices(200)
    assert len(found) > 5 and all(nanoseconds > 0 for nanoseconds in found.values())


def test_the_table_and_its_picture(turns, tmp_path):
    found = steps.measure(Settings(2, 0.02, True))
    assert [row[0] for row in found.rows][: len(STEPS)] == list(STEPS)
    assert {row[0] for row in found.rows if "meanwhile" in row[1]} == set(UNHURRIED)
    shares = [float(row[4]) for row in found.rows if row[0] in STEPS and row[0] not in UNHURRIED]
    assert sum(shares) == pytest.approx(100, abs=5)
    picture = pictures.bars(found, tmp_path / "steps.svg")
    assert picture is not None and all(step in picture.read_text() for step in STEPS)
