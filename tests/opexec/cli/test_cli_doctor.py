"""`opexec doctor`: the real command, under real limits."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

import opexec as library
from tests.command import on_terminal, opexec, opexec_here


def test_this_machine_can_run_opexec() -> None:
    done = opexec("doctor")
    assert done.status == 0, done.out
    assert "BROKEN" not in done.out and "works here" in done.err
    topics = ("kernel", "cores", "shared memory", "memory", "gpu", "uv", "cache", "interpreters")
    assert all(
        any(line.split("  ")[1:] and topic in line for line in done.out.splitlines()) for topic in topics
    )


def test_programs_get_json() -> None:
    told = json.loads(opexec_here("doctor", "--json").out)
    assert told["works"] is True and told["version"] == library.__version__
    assert {"topic", "level", "fact", "cure"} == set(told["findings"][0])
    assert told["facts"]["kernel"]["system"] == "linux"


def test_one_core_is_a_limit() -> None:
    core = min(os.sched_getaffinity(0))
    done = opexec("doctor", first=lambda: os.sched_setaffinity(0, {core}))
    (line,) = (line for line in done.out.splitlines() if " cores " in line)
    assert done.status == 0 and line.startswith("limit") and "1 usable" in line
    assert "could be better" in done.err


def test_few_descriptors_are_a_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = opexec("doctor", first=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)))
    lines = done.out.splitlines()
    place = next(number for number, line in enumerate(lines) if " descriptors " in line)
    assert lines[place].startswith("limit") and lines[place + 1].strip() == "-> Raise it: ulimit -n 4096."


def test_an_interpreter_that_does_not_work_is_a_limit(tmp_path: Path) -> None:
    """A version of pyenv whose library is gone, a link that leads nowhere, and a shim."""
    version = tmp_path / "pyenv" / "versions" / "3.98.1" / "bin"
    version.mkdir(parents=True)
    (version / "python3.98").write_text("\x7fELF is not all that it takes")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "python3.99").symlink_to(tmp_path / "gone")
    shim = tmp_path / "path" / "python3.97"
    shim.write_text('#!/bin/sh\necho "pyenv: version 3.97 is not installed" >&2\nexit 1\n')
    for program in (shim, version / "python3.98"):
        program.chmod(0o755)
    done = opexec(
        "doctor", PYENV_ROOT=str(tmp_path / "pyenv"), PATH=f"{tmp_path / 'path'}:{os.environ['PATH']}"
    )
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert done.status == 0 and not any("3.97 (" in line or "3.98 (" in line for line in lines)
    for program, words, cure in (
        (
            version / "python3.98",
            "does not work: it cannot be executed: Exec format error",
            "pyenv install --force 3.98.1",
        ),
        (
            tmp_path / "path" / "python3.99",
            f"is a link to {tmp_path / 'gone'}, which does not exist",
            "or remove it",
        ),
        (
            shim,
            "does not work: it ended with status 1: pyenv: version 3.97 is not installed",
            "Install it anew",
        ),
    ):
        (place,) = (
            number for number, line in enumerate(lines) if str(program) in line and "does not work" in line
        )
        assert words in lines[place] and lines[place].startswith("limit"), lines[place]
        assert cure in lines[place + 1]


def test_what_keeps_opexec_from_working_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "file" / "cache"))
    done = opexec("doctor")
    assert done.status == 1 and "cannot work here: 1 thing to mend" in done.err
    (line,) = (line for line in done.out.splitlines() if line.startswith("BROKEN"))
    assert "is not a folder" in line
    told = json.loads(opexec_here("doctor", "--json").out)
    assert told["works"] is False


@pytest.mark.parametrize("columns", [100, 60])
def test_it_fits_the_terminal(columns: int) -> None:
    lines = on_terminal(columns, "doctor")
    assert max(map(len, lines)) <= columns
    assert lines[-1].startswith("opexec: works here")
