"""The tools of the clone see ipc and workers through the symlinks once, and hold them to what Python 3.7 has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[2]


def tool(name: str, *arguments: str | Path, cwd: Path = CLONE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name(name), *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def modules(*folders: str) -> set[Path]:
    return {file.resolve() for folder in folders for file in (CLONE / folder).rglob("*.py")}


@pytest.mark.parametrize("room", ["ipc", "workers"])
def test_a_room_is_a_folder_at_the_top_and_a_symlink_in_opexec(room: str) -> None:
    assert not (CLONE / room).is_symlink()
    assert os.readlink(CLONE / "opexec" / room) == f"../{room}"


def test_ruff_checks_each_file_once() -> None:
    shown = [
        line
        for line in tool("ruff", "check", "--show-files", ".").stdout.splitlines()
        if line.endswith(".py")
    ]
    assert len(shown) == len({os.path.realpath(file) for file in shown})
    assert modules("ipc", "workers", "opexec", "benchmarks") <= {Path(file) for file in shown}


def test_mypy_checks_each_file_once() -> None:
    (count,) = re.findall(r"(\d+) source files", tool("mypy", "--no-color-output").stdout)
    assert int(count) == len(modules("ipc", "workers", "opexec", "benchmarks"))


@pytest.mark.parametrize(
    ("code", "checker"),
    [
        ("if (size := 1):\n    print(size)\n", ["ruff", "check"]),
        ("def read(size, /):\n    return size\n", ["ruff", "check"]),
        ("import os\n\nprint(os.pidfd_open(1))\n", ["vermin", "--target=3.7-"]),
        ('print("opexec".removeprefix("op"))\n', ["vermin", "--target=3.7-"]),
    ],
)
@pytest.mark.parametrize("room", ["ipc", "workers"])
def test_what_python_3_7_lacks_is_found(room: str, code: str, checker: list[str], tmp_path: Path) -> None:
    for settings in ("pyproject.toml", "setup.cfg"):
        shutil.copy(CLONE / settings, tmp_path)
    (tmp_path / room).mkdir()
    module = tmp_path / room / "module.py"

    module.write_text("print(1)\n")
    assert tool(*checker, room, cwd=tmp_path).returncode == 0
    module.write_text(code)
    assert tool(*checker, room, cwd=tmp_path).returncode == 1
