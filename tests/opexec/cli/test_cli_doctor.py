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
