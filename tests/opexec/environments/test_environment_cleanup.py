"""What environments take, who uses them, and that nothing goes that somebody needs.

The environments here are folders as a build leaves them, made by hand: an interpreter, a file of a known size, a summary.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opexec.environments import cleanup as environment_cleanup
from opexec.environments import store as environment_store
from opexec.errors import BuildError
from opexec.files import caches

MIB = 1 << 20
DAY = datetime.timedelta(days=1)
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes an environment of so many MiB that was last used so many days ago; gives its folder."""
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))

    def make(
        key: str, days: float = 100, mib: int = 1, name: str | None = None, complete: bool = True
    ) -> Path:
        home = caches.folder("environments") / key
        python = home / "venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(getattr(sys, "_base_executable", sys.executable))
        (home / "venv" / "data").write_bytes(os.urandom(mib * MIB))
        (home / "requirements.lock").write_text("numpy==1.5\n")
        made_with = {"path": sys.executable, "version": "3.11.7"}
        if complete:
            (home / "complete.json").write_text(json.dumps({"made_with": made_with, "requested": {}}))
            used = time.time() - days * 86400
            (home / "used").touch()
            os.utime(home / "used", (used, used))
        if name:
            environment_store.save(name, {}, python)
        return home

    return make


def keys(verdicts: tuple[environment_cleanup.Verdict, ...]) -> list[str]:
    return [verdict.environment.key for verdict in verdicts]


def left() -> list[str]:
    return sorted(each.key for each in environment_store.stored())


@contextlib.contextmanager
def running(*command: str | Path, **arguments: object) -> Iterator[int]:
    """A process that lives until the block ends; gives its id once it is up."""
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [*command, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **arguments
    )  # type: ignore[call-overload]
    try:
        assert process.stdout.readline() == "up\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


# Sizes


def test_sizes_are_those_of_du(make: Make) -> None:
    one, other = make("one", mib=3), make("other", mib=2)
    os.link(one / "venv" / "data", one / "venv" / "same")
    os.link(one / "venv" / "data", other / "venv" / "same")
    disk = environment_cleanup.Disk([one, other])

    def du(*homes: Path) -> int:
        out = subprocess.check_output(["du", "-sc", "--block-size=1", *homes], text=True)
        tops = sum(home.lstat().st_blocks * 512 for home in homes)
        return int(out.splitlines()[-1].split()[0]) - tops

    assert disk.size("one") == du(one)
    assert disk.size("other") == du(other)
    assert disk.size("one", "other") == du(one, other)


def test_only_files_without_links_elsewhere_are_freed(make: Make, tmp_path: Path) -> None:
    one, other = make("one", mib=3), make("other", mib=2)
    os.link(one / "venv" / "data", other / "venv" / "same")
    disk = environment_cleanup.Disk([one, other])
    assert disk.freed("one") < MIB
    assert 2 * MIB <= disk.freed("other") < 3 * MIB
    assert 5 * MIB <= disk.freed("one", "other") < 6 * MIB
    os.link(one / "venv" / "data", tmp_path / "in-uvs-cache")
    assert 2 * MIB <= environment_cleanup.Disk([one, other]).freed("one", "other") < 3 * MIB


# Users


@pytest.mark.parametrize("way", ["path", "relative", "activated", "through a link", "loaded library"])
def test_who_runs_in_an_environment_is_seen(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    home = make("a1")
    make("b2")
    python = home / "venv" / "bin" / "python"
    arguments: dict[str, object] = {}
    command: list[str | Path] = [python]
    if way == "relative":
        command, arguments = ["./bin/python"], {"cwd": home / "venv"}
    elif way == "activated":
        path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        command, arguments = (
            ["python"],
            {"env": {**os.environ, "VIRTUAL_ENV": str(home / "venv"), "PATH": path}},
        )
    elif way == "through a link":
        (tmp_path / "link").symlink_to(tmp_path / "cache")
        monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "link"))  # while the process came by the other way
    elif way == "loaded library":
        program = "import mmap; f = open({!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
        (tmp_path / "sitecustomize.py").write_text(program.format(str(home / "venv" / "data")))
        command, arguments = [sys.executable], {"env": {**os.environ, "PYTHONPATH": str(tmp_path)}}
    with running(*command, **arguments) as pid:
        assert environment_cleanup.users() == {"a1": [pid]}
    assert environment_cleanup.users() == {}


def test_one_in_use_is_not_removed(make: Make) -> None:
    home = make("a1", name="busy")
    with running(home / "venv" / "bin" / "python") as pid:
        with pytest.raises(BuildError, match=f"nobody to use the environment busy; process {pid} runs in it"):
            environment_cleanup.remove_named("busy")
        plan = environment_cleanup.plan(older_than=DAY, named=True)
        assert plan.remove == () and [verdict.reason for verdict in plan.spared] == [
            f"process {pid} runs in it"
        ]
    assert left() == ["a1"] and environment_store.named("busy")
    environment_cleanup.remove_named("busy")
    assert not home.exists() and environment_store.names() == []


def test_one_that_is_being_built_is_not_removed(make: Make) -> None:
    home = make("a1", complete=False)
    with caches.locked(home.with_suffix(".lock"), print):
        assert [verdict.reason for verdict in environment_cleanup.plan().spared] == ["it is being built"]
        with pytest.raises(BuildError, match=f"process {os.getpid()} builds it"):
            environment_cleanup.remove(environment_store.stored()[0])
    assert left() == ["a1"]
    environment_cleanup.carry_out(environment_cleanup.plan())
    assert left() == []


# Pruning


def test_what_is_older_goes(make: Make) -> None:
    make("new", days=10)
    make("old", days=40)
    make("older", days=50)
    plan = environment_cleanup.plan(older_than=30 * DAY)
    assert keys(plan.remove) == ["older", "old"]
    assert left() == ["new", "old", "older"]
    assert environment_cleanup.carry_out(plan) == plan
    assert left() == ["new"]


def test_by_size_the_one_used_least_recently_goes_first(make: Make) -> None:
    for key, days, mib in (("a", 5, 1), ("b", 20, 2), ("c", 10, 3), ("d", 30, 4)):
        make(key, days=days, mib=mib)
    plan = environment_cleanup.plan(larger_than=5 * MIB)
    assert keys(plan.remove) == ["d", "b"]
    assert (
        plan.before > 10 * MIB and 4 * MIB <= plan.after < 5 * MIB and plan.before - plan.after == plan.freed
    )
    assert environment_cleanup.plan(larger_than=plan.before).remove == ()


def test_named_ones_stay_unless_asked_for(make: Make) -> None:
    make("a", name="mine")
    make("b")
    plan = environment_cleanup.plan(older_than=DAY)
    assert keys(plan.remove) == ["b"] and [verdict.reason for verdict in plan.spared] == ["it has a name"]
    assert keys(environment_cleanup.plan(older_than=DAY, named=True).remove) == ["a", "b"]


def test_one_used_just_now_stays(make: Make) -> None:
    make("a", days=0)
    plan = environment_cleanup.plan(larger_than=0)
    assert plan.remove == () and [verdict.reason for verdict in plan.spared] == ["it was used just now"]


def test_one_used_since_the_plan_was_made_stays(make: Make) -> None:
    home = make("a")
    plan = environment_cleanup.plan(older_than=DAY)
    assert keys(plan.remove) == ["a"]
    caches.touch(home / "used")
    done = environment_cleanup.carry_out(plan)
    assert done.remove == () and keys(done.spared) == ["a"] and done.after == done.before
    assert left() == ["a"]


def test_what_interrupted_builds_left_goes_and_the_rest_stays(make: Make) -> None:
    make("half", complete=False)
    gone = make("gone") / "venv" / "bin" / "python"
    gone.unlink()
    make("whole")
    plan = environment_cleanup.plan()
    assert {verdict.environment.key: verdict.reason for verdict in plan.remove} == {
        "half": "its build was interrupted",
        "gone": "its interpreter is gone",
    }
    environment_cleanup.carry_out(plan)
    assert left() == ["whole"]


def test_pruning_leaves_the_versions_and_removing_does_not(make: Make) -> None:
    pruned, removed = make("a"), make("b", days=0)
    environment_cleanup.carry_out(environment_cleanup.plan(older_than=DAY))
    environment_cleanup.remove(next(each for each in environment_store.stored() if each.key == "b"))
    assert [path.name for path in pruned.iterdir()] == ["requirements.lock"]
    assert not removed.exists()


def test_an_environment_stays_as_long_as_it_has_another_name(make: Make) -> None:
    home = make("a", name="one")
    environment_store.save("two", {}, home / "venv" / "bin" / "python")
    assert "its environment is two too" in environment_cleanup.remove_named("one")
    assert [name.name for name in environment_store.names()] == ["two"] and left() == ["a"]
    environment_cleanup.remove_named("two")
    assert not home.exists()


def test_the_name_of_a_pruned_environment_can_be_removed(make: Make) -> None:
    home = make("a", name="one")
    environment_cleanup.carry_out(environment_cleanup.plan(older_than=DAY, named=True))
    assert home.exists() and left() == []
    environment_cleanup.remove_named("one")
    assert not home.exists() and environment_store.names() == []
