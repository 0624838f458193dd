"""What the user is told while an environment is built."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from opexec.environment import Environment
from opexec.environments.build_progress import UvLog, readable_size, reporting
from tests import shelves
from tests.shelves import Served, source_archive, wheel

own_settings = shelves.own_settings
shelf = shelves.shelf


def test_uvs_lines_become_steps() -> None:
    steps: list[str] = []
    log = UvLog(steps.append)
    for line in (
        "Using Python 3.7.16 environment at: /somewhere",
        "Resolved 3 packages in 182ms",
        "Downloading numpy (15.0MiB)",
        "Downloading torch (180.3MiB)",
        " Downloaded numpy",
        "   Building x @ file:///x",
        "      Built x @ file:///x",
        " Downloaded torch",
        "Downloading tiny",
        "Prepared 3 packages in 692ms",
        "Installed 1 package in 10ms",
        "Bytecode compiled 487 files in 1.11s",
        " + numpy==1.21.6",
    ):
        log(line)
    assert steps == [
        "downloading numpy (15.0MiB)",
        "downloading torch (180.3MiB) and 1 more",
        "building x and 1 more, 15.0MiB done",
        "downloading tiny, 195.3MiB done",
        "prepared 3 packages, 195.3MiB downloaded",
        "installed 1 package; compiling bytecode",
    ]


def test_a_real_build_shows_counts_and_sizes(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of downloads, uv mentions those of a megabyte and more."""
    wheel(shelf, "large", "1.0", filler=3 * 2**20)
    source_archive(shelf, "sourced", "1.0")
    served = Served(shelf)
    monkeypatch.setenv("PIP_FIND_LINKS", served.url)
    steps: list[str] = []
    try:
        Environment(sys.executable, ["large", "sourced", "tiny"]).resolve(steps.append)
    finally:
        served.stop()
    assert "installing 4 packages" in steps
    assert [step for step in steps if re.match(r"downloading large \(3\.0MiB\)( and 1 more)?$", step)], steps
    assert [step for step in steps if step.startswith("building sourced==1.0")], steps
    prepared = steps.index("prepared 4 packages, 3.0MiB downloaded")
    assert steps[prepared + 1] == "installed 4 packages; compiling bytecode"
    assert re.fullmatch(r"ready in \S+ s: Python \S+, 4 packages, [\d.]+MiB", steps[-1])


def test_sizes_are_written_as_uv_writes_them() -> None:
    written = {
        0: "0B",
        1023: "1023B",
        1536: "1.5KiB",
        15 * 2**20: "15.0MiB",
        3 * 2**30: "3.0GiB",
        2**42: "4096.0GiB",
    }
    assert {size: readable_size(size) for size in written} == written


def test_nothing_is_shown_before_the_first_step(capfd: pytest.CaptureFixture[str]) -> None:
    with reporting("title", None):
        pass
    assert capfd.readouterr() == ("", "")


def test_a_log_file_gets_one_line_a_step(capfd: pytest.CaptureFixture[str]) -> None:
    with reporting("title", None) as report:
        report("one")
        report("two")
    assert capfd.readouterr() == ("", "opexec: title\nopexec: one\nopexec: two\n")


def test_a_function_given_gets_all_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    with reporting("title", told.append) as report:
        report("one")
    assert told == ["title", "one"] and capfd.readouterr() == ("", "")
