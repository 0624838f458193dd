"""`opexec env`, with a cache of its own: each command in a process of its own at least once, else in this one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import opexec as library
from opexec import Environment
from opexec.environments import cleanup as environment_cleanup
from opexec.environments import store as environment_store
from opexec.environments.interpreters import Interpreter
from opexec.files import caches
from tests import shelves
from tests.command import REPOSITORY, on_terminal, opexec, opexec_here
from tests.shelves import index, minor, quiet, versions, wheel

old = shelves.old
own_settings = shelves.own_settings
shelf = shelves.shelf


def listed(*options: str) -> list[dict[str, object]]:
    done = opexec_here("env", "list", "--json", *options)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert isinstance(found, list)
    return found


def test_create_gives_a_path_and_the_name_goes_on_giving_it(shelf: Path) -> None:
    done = opexec("env", "create", "small", "tiny<2", "--env", "COLOUR=deep=blue")
    assert done.status == 0, done.err
    python = Path(done.out.strip())
    assert versions(python, "tiny", "numpy") == ["1.0", "1.5"]
    assert "small is Python" in done.err and "with 2 packages" in done.err
    assert opexec("env", "path", "small").out == done.out
    found = environment_store.named("small")
    assert found.resolve(quiet) == python and dict(found.env_vars) == {"COLOUR": "deep=blue"}


def test_the_same_again_is_quick_and_another_needs_replace(shelf: Path) -> None:
    first = opexec_here("env", "create", "small", "tiny<2")
    assert "installing" in first.err
    again = opexec_here("env", "create", "small", "Tiny <2")
    assert again.out == first.out and "installing" not in again.err
    refused = opexec_here("env", "create", "small", "tiny>=2")
    assert (
        refused.status == 1 and "stands for another environment already (requirements tiny<2)" in refused.err
    )
    replaced = opexec_here("env", "create", "small", "tiny>=2", "--replace")
    assert replaced.status == 0 and versions(Path(replaced.out.strip()), "tiny") == ["2.0"]


def test_what_its_lock_or_a_local_package_says_by_now_needs_replace(shelf: Path, tmp_path: Path) -> None:
    lock = tmp_path / "app.lock"
    lock.write_text("tiny==1.0\nnumpy==1.5\n")
    place = tmp_path / "tiny-1.0-py3-none-any.whl"
    shutil.copy(shelf / place.name, place)
    for name, arguments, change in (
        ("locked", ("--lock", lock), lambda: lock.write_text("tiny==2.0\nnumpy==1.5\n")),
        ("local", (f"tiny @ {place.as_uri()}",), lambda: os.utime(place, (1e9, 1e9))),
    ):
        first = opexec_here("env", "create", name, *arguments)
        assert first.status == 0, first.err
        change()
        refused = opexec_here("env", "create", name, *arguments)
        assert refused.status == 1 and "from before the files changed that it is made from" in refused.err
        assert opexec_here("env", "path", name).out == first.out
        replaced = opexec_here("env", "create", name, *arguments, "--replace")
        assert replaced.status == 0 and replaced.out != first.out, replaced.err
        assert opexec_here("env", "create", name, *arguments).out == replaced.out


def test_requirements_and_constraints_from_files(shelf: Path, tmp_path: Path) -> None:
    wheel(shelf, "big", "1.0", "tiny")
    (tmp_path / "requirements.txt").write_text("# what it needs\nbig\n")
    (tmp_path / "limits.txt").write_text("tiny<2\n")
    done = opexec_here(
        "env", "create", "a", "-r", tmp_path / "requirements.txt", "-c", tmp_path / "limits.txt"
    )
    assert done.status == 0, done.err
    assert versions(Path(done.out.strip()), "big", "tiny") == ["1.0", "1.0"]
    (tmp_path / "script.py").write_text('# /// script\n# dependencies = ["tiny"]\n# ///\n')
    done = opexec_here("env", "create", "b", "-r", tmp_path / "script.py", "-c", "tiny<2")
    assert versions(Path(done.out.strip()), "tiny") == ["1.0"]
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "p"\nversion = "1"\ndependencies = ["tiny==2.0"]\n'
    )
    done = opexec_here("env", "create", "c", "-r", tmp_path / "pyproject.toml")
    assert versions(Path(done.out.strip()), "tiny") == ["2.0"]


def test_find_links_are_looked_into(shelf: Path, tmp_path: Path) -> None:
    wheel(tmp_path / "more", "extra", "1.0")
    done = opexec_here("env", "create", "a", "extra", "--find-links", tmp_path / "more")
    assert versions(Path(done.out.strip()), "extra") == ["1.0"], done.err


def test_a_lock_makes_the_same_again(shelf: Path, tmp_path: Path) -> None:
    opexec_here("env", "create", "old", "tiny")
    shown = opexec("env", "lock", "old")
    assert [line for line in shown.out.splitlines() if not line.startswith("#")] == [
        "numpy==1.5",
        "tiny==2.0",
    ]
    file = tmp_path / "old.lock"
    assert opexec_here("env", "lock", "old", "-o", file).out == ""
    assert file.read_text() == shown.out
    wheel(shelf, "tiny", "3.0")
    done = opexec_here("env", "create", "new", "--lock", file)
    assert versions(Path(done.out.strip()), "tiny") == ["2.0"], done.err


def test_list_and_show_tell_what_there_is(shelf: Path) -> None:
    opexec_here("env", "create", "small", "tiny")
    Environment(requirements=["tiny<2"]).resolve(quiet)
    named, other = listed()
    assert named["names"] == ["small"] and other["names"] == []
    assert named["packages"] == {"numpy": "1.5", "tiny": "2.0"} and named["complete"] is True
    assert named["request"] == {"requirements": ["tiny"]} and isinstance(named["size"], int)
    assert named["python"] == "{}.{}.{}".format(*sys.version_info[:3])
    assert [each["names"] for each in listed("--named")] == [["small"]]
    measured = listed("--disk")[0]
    assert 0 < measured["freed_if_removed"] <= measured["size"]  # type: ignore[operator]
    shown = json.loads(opexec("env", "show", "small", "--json").out)
    assert shown["key"] == named["key"] and shown["processes"] == []
    text = opexec_here("env", "show", str(other["key"])[:8]).out
    assert "tiny<2" in text and "nobody" in text and "tiny" in text


def test_prune_removes_and_path_builds_again(shelf: Path) -> None:
    python = Path(opexec_here("env", "create", "small", "tiny").out.strip())
    os.utime(python.parents[2] / "used", (1e9, 1e9))
    rehearsed = opexec("env", "prune", "--older-than", "30d", "--named", "--dry-run")
    assert rehearsed.out.splitlines()[1].split()[:2] == ["remove", "small"] and python.exists()
    assert opexec_here("env", "prune", "--older-than", "30d").out.splitlines()[1].split()[:2] == [
        "keep",
        "small",
    ]
    done = opexec_here("env", "prune", "--older-than", "30d", "--named")
    assert done.out.splitlines()[1].split()[:2] == ["removed", "small"] and not python.exists()
    assert [each["complete"] for each in listed()] == [False]
    assert "built when it is next used" in opexec_here("env", "list").out
    again = opexec_here("env", "path", "small")
    assert again.out.strip() == str(python) and "ready in" in again.err


def test_remove_tells_of_each_and_goes_on_after_a_failure(shelf: Path) -> None:
    opexec_here("env", "create", "one", "tiny")
    done = opexec("env", "remove", "absent", "one")
    assert done.status == 1 and "removed one" in done.err and "no environment named 'absent'" in done.err
    assert listed() == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["create", "bad/name"], 1, "got 'bad/name'"),
        (["create", "a", "not a requirement"], 1, "expected a requirement such as"),
        (["create", "a", "absent-package"], 1, "No solution found"),
        (["create", "a", "--env", "X"], 2, "expected KEY=VALUE"),
        (["create", "a", "-r", "absent.txt"], 2, "does not exist"),
        (["create"], 2, "Missing argument 'NAME'"),
        (["path", "absent"], 1, "None has a name yet"),
        (["show", "absent"], 1, "None has a name yet"),
        (["prune", "--older-than", "soon"], 2, "30d, 12h"),
        (["prune", "--larger-than", "much"], 2, "20GB or 500MiB"),
        (["remove"], 2, "Missing argument"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_on_standard_error(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, words: str
) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    done = opexec_here("env", *arguments)
    assert (done.status, done.out) == (status, "") and words in done.err
    assert environment_store.names() == []


def test_an_empty_cache_says_how_to_begin(shelf: Path) -> None:
    done = opexec("env", "list")
    assert (done.status, done.out) == (0, "") and "opexec env create NAME" in done.err
    assert json.loads(opexec_here("env", "list", "--json").out) == []


@pytest.mark.parametrize("columns", [100, 60])
def test_tables_fit_the_terminal_and_are_whole_in_a_pipe(shelf: Path, columns: int) -> None:
    names = [f"package-number-{number}" for number in range(8)]
    for name in names:
        wheel(shelf, name.replace("-", "_"), "1.0")
    long = "a-name-that-is-rather-long-for-a-terminal"
    opexec_here("env", "create", "many", *names)
    header, row, *_ = on_terminal(columns, "env", "list")
    assert header.split()[:2] == ["name", "python"] and row.startswith("many  ") and row.endswith("…")
    opexec_here("env", "create", long, *names)
    for options in ([], ["--disk"]):
        header, row, *_ = on_terminal(columns, "env", "list", *options)
        assert len(header) <= columns and len(row) <= columns
    assert all(len(line) <= columns for line in on_terminal(columns, "env", "show", "many"))
    assert f"{long}, many" in opexec_here("env", "list").out
    assert ", ".join(names) in opexec_here("env", "list").out


def test_a_reader_that_has_seen_enough_gets_no_complaint(shelf: Path) -> None:
    opexec_here("env", "create", "small", "tiny")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "opexec", "env", "list"],
        cwd=REPOSITORY,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert "Broken" not in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_ends_a_build_with_one_line(shelf: Path) -> None:
    """It waits for a lock here, and is interrupted when it says so."""
    home = Environment(requirements=["tiny"]).resolve(quiet).parents[2]
    (home / "complete.json").unlink()
    with caches.locked(home.with_suffix(".lock"), print):
        process = subprocess.Popen(
            [sys.executable, "-m", "opexec", "env", "create", "small", "tiny"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        with contextlib.closing(process.stderr):
            assert any("waiting for" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            assert process.stdout is not None and process.stdout.read() == ""
            process.stdout.close()
            assert process.wait() == 130
    assert rest.strip() == "opexec: interrupted"


# With the real numpy, and a model


@pytest.mark.slow
def test_a_model_is_loaded_by_the_name_of_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_CONFIG_FILE")
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))
    done = opexec_here("env", "create", "plain", "numpy<2.5", "--env", "OPEXEC_TEST_COLOUR=blue")
    assert done.status == 0, done.err
    (tmp_path / "models.py").write_text(
        "import os\ndef colour():\n    return lambda x: {'ok': x * 0 + (os.environ['OPEXEC_TEST_COLOUR'] == 'blue')}\n"
    )
    with library.load(f"{tmp_path / 'models.py'}:colour", env="plain") as model:
        assert model.infer({"x": np.ones(1)})["ok"].tolist() == [1.0]
        (worker,) = model.workers
        assert worker.interpreter == done.out.strip()
        assert opexec_here("env", "show", "plain").out.count(f"process {worker.pid}") == 1
        refused = opexec_here("env", "remove", "plain")
        assert refused.status == 1 and f"process {worker.pid} runs in it" in refused.err
    assert opexec_here("env", "remove", "plain").status == 0


# Which Python, which index, how much


def test_the_python_named_is_the_one_it_gets(shelf: Path, old: Interpreter) -> None:
    done = opexec_here("env", "create", "aged", "--python", minor(old), "tiny<2")
    assert done.status == 0, done.err
    assert f"aged is Python {minor(old)}." in done.err and "with 2 packages" in done.err
    python = Path(done.out.strip())
    assert versions(python, "tiny") == ["1.0"]
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    assert subprocess.check_output([python, "-I", "-c", program], text=True).strip() == minor(old)
    (named,) = listed()
    assert named["request"] == {"python": minor(old), "requirements": ["tiny<2"]}


def test_the_index_named_is_used_in_place_of_the_one_configured(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", index(tmp_path / "configured", "tiny", "9.0"))
    mine, more = index(tmp_path / "mine", "tiny", "7.0"), index(tmp_path / "more", "tiny", "8.0")
    done = opexec_here("env", "create", "a", "tiny", "--index-url", mine)
    assert versions(Path(done.out.strip()), "tiny") == ["7.0"], done.err
    done = opexec_here("env", "create", "b", "tiny", "--index-url", mine, "--extra-index-url", more)
    assert versions(Path(done.out.strip()), "tiny") == ["8.0"], done.err


def test_prune_removes_what_was_used_least_recently_until_the_rest_is_small_enough(shelf: Path) -> None:
    homes = []
    for name, requirement, used in (("newer", "tiny<2", 1.1e9), ("older", "tiny>=2", 1e9)):
        homes.append(Path(opexec_here("env", "create", name, requirement).out.strip()).parents[2])
        os.utime(homes[-1] / "used", (used, used))
    newer, older = (home / "venv" for home in homes)
    everything = environment_cleanup.Disk(homes).size(*(home.name for home in homes))
    kept = opexec_here("env", "prune", "--larger-than", str(everything), "--named")
    assert "nothing to remove" in kept.err and newer.exists() and older.exists()
    done = opexec_here("env", "prune", "--larger-than", str(everything - 1), "--named")
    assert done.status == 0, done.err
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [["removed", "older"]]
    assert "used least recently" in done.out and " are free again" in done.err
    assert newer.exists() and not older.exists()
