"""The comparison of loading one after the other with loading all at once: what it measures, and what it holds it against."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.frameworks.environments import FRAMEWORKS
from benchmarks.loading import TEN, Round, Single, measure


def test_all_at_once_is_held_against_the_slowest_or_what_the_cores_can_do() -> None:
    singles = {"long": Single(4.0, 1.0), "busy": Single(3.0, 3.0), "short": Single(1.0, 1.0)}
    found = Round(singles, 5.0, dict.fromkeys(singles, 5.0))
    assert (found.sum, found.slowest) == (8.0, "long")
    assert found.bound(2) == 4.0  # the slowest
    assert found.bound(1) == 5.0  # all processor time on one core


def test_ten_frameworks_that_there_are() -> None:
    assert len(set(TEN)) == 10 and set(TEN) <= set(FRAMEWORKS)


def test_models_are_loaded_singly_and_at_once(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("def same():\n    return lambda x: x\n")
    told: list[tuple[str, str]] = []
    wanted = {name: {"source": f"{tmp_path}/models.py:same"} for name in ("one", "two")}
    found = measure(wanted, lambda name, step: told.append((name, step)))
    assert set(found.singles) == set(found.ready) == {"one", "two"}
    assert all(one.seconds > 0 and one.processor > 0 for one in found.singles.values())
    assert max(found.ready.values()) <= found.at_once
    assert {name for name, step in told if step.startswith("ready")} == {"one", "two"}


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_the_least_is_never_below_the_slowest(cores: int) -> None:
    assert Round({"one": Single(2.0, 1.0)}, 2.0, {}).bound(cores) == 2.0
