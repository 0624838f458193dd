"""A worker has no more of the machine than `load` gives it, from before its framework is imported; what goes past that is told plainly."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import opexec
from opexec import LoadError, Model, ModelError, WorkerDied
from opexec.machine import control_groups, oom
from opexec.machine.memory_group import MemoryGroup
from opexec.machine.oom import OomKills
from tests.loaded import PYTHONS, interpreter

MODELS = Path(__file__).with_name("limited_models.py")
REPOSITORY = str(Path(__file__).parents[2])

LIMIT = "200MiB"
BYTES = 200 << 20


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenBLAS takes 30 MB for each core of the machine when numpy is imported."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


def source(factory: str) -> str:
    return f"{MODELS}:{factory}"


def value(model: Model, expression: str) -> str:
    """What a model that is `looking` sees."""
    return str(model.infer({"expression": np.array(expression)})["value"])


# ---- memory


@pytest.mark.parametrize("python", PYTHONS)
def test_an_allocation_past_the_limit_is_the_models_error_and_the_worker_lives_on(python: str) -> None:
    with opexec.load(source("allocating"), env=interpreter(python), memory_limit=LIMIT) as model:
        pid = model.workers[0].pid
        assert model.infer({"mib": np.array(10)})["y"] == 10 << 20
        with pytest.raises(ModelError, match="Unable to allocate 200"):
            model.infer({"mib": np.array(200)})
        assert model.infer({"mib": np.array(10)})["y"] == 10 << 20
        assert model.workers[0].pid == pid


def test_shared_memory_and_files_that_are_mapped_do_not_count() -> None:
    with opexec.load(source("allocating"), memory_limit=LIMIT) as model:
        x = model.empty("x", (220 << 20,), np.uint8)
        x[-5:] = 1
        assert model.infer({"mib": np.array(10), "x": x})["x"] >= 5
    with opexec.load(source("mapping"), memory_limit=LIMIT) as model:
        assert model.infer({"mib": np.array(500)})["y"] == 7


def test_a_worker_that_dies_of_its_limit_names_it() -> None:
    with opexec.load(source("giving_up"), memory_limit=LIMIT) as model:
        model.infer({"mib": np.array(10)})
        with pytest.raises(WorkerDied, match="killed by SIGABRT while running a call.* memory_limit=200 MiB"):
            model.infer({"mib": np.array(200)})


@pytest.mark.parametrize("limit", ["1MiB", "30MiB"])
def test_a_limit_that_is_too_small_for_python_is_named(limit: str) -> None:
    with pytest.raises((LoadError, WorkerDied), match=f"memory_limit={limit[:-3]} MiB"):
        opexec.load(source("allocating"), memory_limit=limit)


def test_limits_are_there_before_anything_is_imported_and_for_what_the_model_starts() -> None:
    with opexec.load(source("looking"), memory_limit=LIMIT) as model:
        assert value(model, "AT_IMPORT") == str(BYTES)
        assert "RLIMIT_DATA" in model.workers[0].limited_by
        said = value(
            model,
            "subprocess.check_output([sys.executable, '-c', "
            "'import resource; print(resource.getrlimit(resource.RLIMIT_DATA))'])",
        )
        assert f"({BYTES}, {BYTES})" in said
        assert value(model, "resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))") in ("ValueError", "None")


# ---- the rest


def test_priority_files_core_dumps_and_working_directory(tmp_path: Path) -> None:
    with opexec.load(source("looking"), nice=3, open_files=100, cwd=tmp_path) as model:
        assert value(model, "os.nice(0)") == str(min(19, os.nice(0) + 3))
        assert value(model, "resource.getrlimit(resource.RLIMIT_NOFILE)") == "(100, 100)"
        assert value(model, "resource.getrlimit(resource.RLIMIT_CORE)") == "(0, 0)"
        assert value(model, "os.getcwd()") == str(tmp_path)
        assert value(model, "[os.open('/', os.O_RDONLY) for _ in range(100)]") == "OSError"


def test_core_dumps_are_as_the_callers_where_they_are_wanted() -> None:
    mine = resource.getrlimit(resource.RLIMIT_CORE)
    with opexec.load(source("looking"), core_dumps=True) as model:
        assert value(model, "resource.getrlimit(resource.RLIMIT_CORE)") == str(mine)
        assert value(model, "os.getcwd()") == os.getcwd()


def test_a_limit_that_the_system_does_not_grant_is_an_error() -> None:
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    with pytest.raises(LoadError, match=rf"open_files={most + 1} \(RLIMIT_NOFILE\) cannot be set") as caught:
        opexec.load(source("looking"), open_files=most + 1)
    assert caught.value.stage == "handshake"


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("memory_limit", 0),
        ("memory_limit", "much"),
        ("memory_limit", -1),
        ("open_files", 3),
        ("open_files", True),
        ("open_files", "64"),
        ("nice", 20),
        ("nice", -21),
        ("nice", 1.5),
        ("core_dumps", None),
        ("cwd", "/no/such/folder"),
        ("cwd", __file__),
        ("cwd", 5),
        ("sandbox", "yes"),
    ],
)
def test_what_cannot_be_a_limit_is_refused(argument: str, wrong: object) -> None:
    with pytest.raises(ValueError, match=f"{argument}.*expected|{argument}.*check the path"):
        opexec.load(source("looking"), **{argument: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [{"memory_limit": "1GiB"}, {"nice": 1}, {"open_files": 64}, {"cwd": "/"}, {"sandbox": True}],
    ids=str,
)
def test_a_model_in_process_cannot_be_limited(asked: dict) -> None:
    with pytest.raises(ValueError, match="with isolation='none'"):
        opexec.load(source("looking"), isolation="none", **asked)


CALLER = """
import os, signal, sys
import numpy as np
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
import opexec
with opexec.load(sys.argv[1]) as model:
    for expression in sys.argv[2:]:
        print(model.infer({"expression": np.array(expression)})["value"])
"""


def test_a_worker_takes_over_what_is_the_machines_and_not_what_is_the_callers_own() -> None:
    mine = {
        "VIRTUAL_ENV": "/v",
        "CONDA_PREFIX": "/c",
        "PYTHONPATH": REPOSITORY,
        "NOTIFY_SOCKET": "/n",
        "LISTEN_FDS": "1",
    }
    machines = {"LD_LIBRARY_PATH": "/nowhere", "CUDA_HOME": "/cuda"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            CALLER,
            source("looking"),
            f"sorted(set({sorted({**mine, **machines})!r}) & set(os.environ))",
            "signal.pthread_sigmask(signal.SIG_BLOCK, [])",
            "subprocess.run(['false']).returncode",
        ],
        env={**os.environ, **mine, **machines},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [str(sorted(machines)), "set()", "1"], done.stderr


# ---- what the kernel counts


def test_what_is_said_of_a_sigkill_is_what_the_kernel_counted(tmp_path: Path) -> None:
    vmstat, group = tmp_path / "vmstat", tmp_path / "group"
    group.mkdir()
    events = group / "memory.events"
    vmstat.write_text("nr_free_pages 5\noom_kill 7\n")
    events.write_text("low 0\noom 1\noom_kill 2\noom_group_kill 0\n")
    both = OomKills(group, vmstat=vmstat)
    assert "no out-of-memory kill in its control group" in both.account()
    assert "still 2), so some process sent the signal" in both.account()
    vmstat.write_text("oom_kill 8\n")
    assert "no out-of-memory kill in its control group" in both.account()  # another group's
    events.write_text("oom_kill 4\n")
    assert (
        f"2 out-of-memory kills in its control group while it ran (oom_kill in {events}: 2, now 4)"
        in both.account()
    )
    events.unlink()
    assert "1 out-of-memory kill on this machine while it ran (oom_kill in" in both.account()
    vmstat.unlink()
    assert "cannot be read" in both.account()


def test_a_worker_that_was_killed_says_what_the_kernel_counted_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 0\n")
    monkeypatch.setattr(control_groups, "own", lambda controller: (tmp_path, 2))
    for counted, words in (
        (0, "no out-of-memory kill in its control group"),
        (1, "1 out-of-memory kill in its control"),
    ):
        with opexec.load(source("looking")) as model:
            events.write_text(f"oom_kill {counted}\n")
            with pytest.raises(
                WorkerDied, match=f"was killed by SIGKILL while running a call; the kernel counted {words}"
            ):
                value(model, "os.kill(os.getpid(), signal.SIGKILL)")


def test_the_kernels_own_counters_are_found() -> None:
    assert any(oom._oom_kill(file) is not None for file in OomKills()._files)


# ---- control groups: a tree of files in their place, as many a machine has none that a user may change


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A group with the caller's group in it, which have the controller."""
    mine = tmp_path / "mine"
    mine.mkdir()
    for group in (tmp_path, mine):
        (group / "cgroup.controllers").write_text("cpu memory\n")
        (group / "cgroup.procs").write_text("")
        (group / "memory.max").write_text("max\n")
        (group / "memory.high").write_text("max\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    (mine / "cgroup.subtree_control").write_text("\n")
    monkeypatch.setattr(control_groups, "own", lambda controller: (mine, 2))
    monkeypatch.setattr(
        Path, "rmdir", lambda folder: shutil.rmtree(folder)
    )  # the kernel's own files go with a group
    yield tmp_path


def groups(tree: Path) -> list[Path]:
    return list(tree.glob("opexec-*"))


def test_a_worker_gets_a_control_group_of_its_own_where_that_is_allowed(tree: Path) -> None:
    (tree / "opexec-999999999-0").mkdir()  # of a caller that was killed
    with opexec.load(source("looking"), memory_limit=LIMIT) as model:
        (group,) = groups(tree)
        assert (group / "memory.max").read_text() == str(BYTES)
        assert (group / "memory.oom.group").read_text() == "1"
        assert model.workers[0].limited_by == ("RLIMIT_DATA", str(group))
        assert (group / "cgroup.procs").read_text() == "0\n"  # for the kernel: whoever writes this
        assert value(model, "AT_IMPORT") == str(BYTES)  # and this limit is there too
        with pytest.raises(WorkerDied, match="no out-of-memory kill.*memory_limit=200 MiB"):
            value(model, "os.kill(os.getpid(), signal.SIGKILL)")
    assert groups(tree) == []


def test_a_group_that_would_let_the_worker_escape_from_a_limit_is_not_made(tree: Path) -> None:
    MemoryGroup(BYTES).remove()
    (tree / "mine" / "memory.max").write_text("1000000000\n")
    with pytest.raises(PermissionError, match="has a memory limit, from which"):
        MemoryGroup(BYTES)
    (tree / "mine" / "memory.max").write_text("max\n")
    (tree / "cgroup.subtree_control").write_text("cpu\n")
    with pytest.raises(PermissionError, match="has no group beside it"):
        MemoryGroup(BYTES)
    (tree / "mine" / "cgroup.subtree_control").write_text("memory\n")  # the caller is in the root
    group = MemoryGroup(BYTES)
    assert group.folder.parent == tree / "mine"
    group.remove()
    assert not group.folder.exists()


def test_which_limit_holds_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_groups, "own", lambda controller: None)
    with (
        caplog.at_level("INFO", "opexec.limits"),
        opexec.load(source("looking"), memory_limit=LIMIT, name="m"),
    ):
        pass
    assert [one.getMessage() for one in caplog.records if one.name == "opexec.limits"] == [
        "m: memory is limited by RLIMIT_DATA alone, without a control group: "
        "the memory controller of control groups version 2 is not there"
    ]
