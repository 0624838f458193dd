"""Removing unpacked packages: by age and size, never one that a model runs from, and what is removed comes back when it is asked for."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import opexec
from opexec.package import Package, read
from opexec.packages import cleanup
from tests.command import opexec as command

from .package_samples import sample, zip_of

HOUR = datetime.timedelta(hours=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def unpacked(path: Path, name: str, hours: float, size: int = 0) -> Package:
    """A package that was unpacked and last used so many hours ago."""
    package = read(zip_of(path / f"{name}.zip", sample(name=name) | {"0/data/more": bytes(size)}))
    aged(package, hours)
    return package


def aged(package: Package, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(package.folder().parent / "used", (then, then))


def names(verdicts: tuple[cleanup.Verdict, ...]) -> list[str]:
    return [verdict.package.name for verdict in verdicts]


def test_by_age_and_by_size(tmp_path: Path) -> None:
    old, older, new = (
        unpacked(tmp_path, name, hours, 1 << 20) for name, hours in (("old", 30), ("older", 40), ("new", 2))
    )
    found = cleanup.kept()
    assert [each.name for each in found] == ["new", "old", "older"]
    assert [each.source for each in found] == [str(each.path) for each in (new, old, older)]
    assert not any(each.in_use for each in found) and all(each.size > 1 << 20 for each in found)
    assert cleanup.total() == (3, sum(each.size for each in found))
    assert names(cleanup.plan().remove) == []
    assert names(cleanup.plan(older_than=24 * HOUR).remove) == ["older", "old"]
    by_size = cleanup.plan(larger_than=cleanup.total()[1] - 1)
    assert names(by_size.remove) == ["older"]
    done = cleanup.carry_out(by_size)
    assert names(done.remove) == ["older"] and done.after == cleanup.total()[1]
    assert [each.name for each in cleanup.kept()] == ["new", "old"]
    assert (older.folder() / "0/data/more").exists()  # it comes back


def test_what_was_used_just_now_stays(tmp_path: Path) -> None:
    package = unpacked(tmp_path, "old", 30)
    planned = cleanup.plan(older_than=HOUR)
    package.folder()  # between looking and removing
    done = cleanup.carry_out(planned)
    assert names(done.remove) == [] and [each.reason for each in done.spared] == ["it was asked for just now"]
    done = cleanup.carry_out(cleanup.plan(larger_than=0))
    assert names(done.remove) == [] and [each.reason for each in done.spared] == ["it was used just now"]
    assert (package.folder().parent / "tree/config.json").exists()


def test_one_that_is_being_unpacked_stays(tmp_path: Path) -> None:
    package = unpacked(tmp_path, "old", 30)
    home = package.folder().parent
    aged(package, 30)
    planned = cleanup.plan(older_than=HOUR)
    with open(home.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cleanup.carry_out(planned)
    assert names(done.remove) == [] and "unpacks it" in done.spared[0].reason and home.exists()


def test_what_killed_processes_left_goes(tmp_path: Path, cache: Path) -> None:
    unpacked(tmp_path, "new", 1)
    left = cache / "packages" / f".{'0' * 64}.dead"
    left.mkdir()
    cleanup.carry_out(cleanup.plan())
    assert not left.exists() and len(cleanup.kept()) == 1


def test_what_is_remembered_of_files_goes_with_age(cache: Path) -> None:
    remembered = cache / "packages/hashes"
    remembered.mkdir(parents=True)
    for name in ("old.json", "new.json"):
        (remembered / name).touch()
    os.utime(remembered / "old.json", (1e9, 1e9))
    cleanup.carry_out(cleanup.plan(larger_than=0))
    assert len(list(remembered.iterdir())) == 2
    cleanup.carry_out(cleanup.plan(older_than=HOUR))
    assert [entry.name for entry in remembered.iterdir()] == ["new.json"]


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_one_that_a_model_runs_from_stays(isolation: str, tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import os
        def make(data):
            def read(x):
                with open(os.path.join(data, "factor")) as file:
                    return {"y": x * float(file.read())}
            return read
        """)
    spec = {"dtype": "float64", "shape": ["n"]}
    config = {
        "platform": "python",
        "input_spec": [{"name": "x", **spec}],
        "output_spec": [{"name": "y", **spec}],
    }
    files = {
        "config.json": json.dumps({"name": "reads", **config}).encode(),
        "0/config.json": b'{"entrypoint_package": "m", "entrypoint": "make"}',
        "0/code/m.py": code.encode(),
        "0/data/factor": b"3",
    }
    package = read(zip_of(tmp_path / "reads.zip", files))
    with opexec.load(package.path, isolation=isolation) as model:
        used = package.folder().parent / "used"
        os.utime(used, (1e9, 1e9))
        assert [each.in_use for each in cleanup.kept()] == [True]
        done = cleanup.carry_out(cleanup.plan(older_than=HOUR, larger_than=0))
        assert names(done.remove) == [] and [each.reason for each in done.spared] == ["a model runs from it"]
        np.testing.assert_array_equal(model.infer({"x": np.ones(2)})["y"], [3.0, 3.0])
        listed = json.loads(command("packages", "list", "--json").out)
        assert [(each["name"], each["in_use"]) for each in listed] == [("reads", True)]
    del model
    assert names(cleanup.carry_out(cleanup.plan(older_than=HOUR)).remove) == ["reads"]
    assert cleanup.kept() == []


def test_the_command(tmp_path: Path) -> None:
    empty = command("packages", "list")
    assert empty.status == 0 and "no packages are unpacked" in empty.err
    unpacked(tmp_path, "old", 48), unpacked(tmp_path, "new", 1)
    shown = command("packages", "list")
    assert [line.split()[0] for line in shown.out.splitlines()] == ["name", "new", "old"]
    assert "2 d ago" in shown.out and str(tmp_path / "old.zip") in shown.out and "2 packages" in shown.err
    rehearsed = command("packages", "prune", "--older-than", "1d", "--dry-run")
    assert rehearsed.out.splitlines()[1].split()[:2] == ["remove", "old"] and "would take" in rehearsed.err
    assert len(cleanup.kept()) == 2
    done = command("packages", "prune", "--older-than", "1d")
    assert done.out.splitlines()[1].split()[:2] == ["removed", "old"]
    assert [each.name for each in cleanup.kept()] == ["new"]
    told = command("packages", "prune")
    assert "nothing to remove" in told.err and "--older-than 30d" in told.err
    wrong = command("packages", "prune", "--older-than", "soon")
    assert wrong.status == 2 and "30d, 12h" in wrong.err
    doctor = json.loads(command("doctor", "--json").out)
    assert doctor["facts"]["cache"]["packages"] == 1 and doctor["facts"]["cache"]["packages_size"] > 0
    (finding,) = [each for each in doctor["findings"] if each["topic"] == "cache"]
    assert "1 unpacked package, " in finding["fact"]
