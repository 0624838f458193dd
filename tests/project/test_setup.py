"""`make` sets itself up with whatever Python there is, once, and says in one line what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "tools" / "setup.sh"

BROKEN_SHIM = "echo 'pyenv: python: command not found' >&2; exit 127"
TOO_OLD = "case $2 in *version_info*) exit 1;; esac"
WITHOUT_ENSUREPIP = f'case $2 in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"'
FITTING = f'exec {sys.executable} "$@"'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small project with the set-up script, on a machine where no interpreter is known yet."""
    clone = tmp_path / "clone"
    (clone / "tools").mkdir(parents=True)
    shutil.copy(SETUP, clone / "tools")
    (clone / "small.py").touch()
    (clone / "pyproject.toml").write_text(
        '[project]\nname = "small"\nversion = "1"\n[project.optional-dependencies]\ntest = []\n'
        '[tool.setuptools]\npy-modules = ["small"]\n'
    )
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("sh", "dirname", "sed", "cat", "cksum", "head", "xargs", "tr", "printenv"):
        (commands / name).symlink_to(shutil.which(name) or "absent")
    return clone


def put_python(clone: Path, name: str, script: str) -> None:
    command = clone.parent / "bin" / name
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


def set_up(clone: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [clone / "tools" / "setup.sh", "test"],
        env={
            **{name: value for name, value in os.environ.items() if name not in ("PYTHON", "PYENV_ROOT")},
            "HOME": str(clone.parent),
            "PATH": str(clone.parent / "bin"),
            **variables,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("pythons", "variables", "cure"),
    [
        ({}, {}, "apt-get install python3 python3-venv"),
        ({"python3.13": BROKEN_SHIM, "python3": TOO_OLD}, {}, "apt-get install python3 python3-venv"),
        ({"python3": WITHOUT_ENSUREPIP}, {}, "-venv` and try again"),
        ({"python3": FITTING}, {"PYTHON": "python3.12"}, "leave PYTHON out"),
        ({"python3": FITTING, "python3.12": BROKEN_SHIM}, {"PYTHON": "python3.12"}, "leave PYTHON out"),
    ],
)
def test_what_is_missing_is_said_in_one_line_with_its_cure(
    clone: Path, pythons: dict[str, str], variables: dict[str, str], cure: str
) -> None:
    for name, script in pythons.items():
        put_python(clone, name, script)
    finished = set_up(clone, **variables)
    assert finished.returncode != 0
    assert len(finished.stderr.splitlines()) == 1
    assert cure in finished.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_set_up_passes_over_what_does_not_fit_and_is_done_again_only_when_needed(clone: Path) -> None:
    put_python(clone, "python3.13", BROKEN_SHIM)
    put_python(clone, "python3.12", TOO_OLD)
    put_python(clone, "python3.11", WITHOUT_ENSUREPIP)
    put_python(clone, "python3.10", FITTING)

    def steps(clone: Path) -> list[str]:
        finished = set_up(clone, HOME=os.environ.get("HOME", ""))  # for the caches in it
        assert finished.returncode == 0, finished.stderr
        where = subprocess.run(
            [clone / ".venv/bin/python", "-I", "-c", "import small; print(small.__file__)"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert where.stdout.strip() == str(clone / "small.py")
        return [line.split()[1] for line in finished.stdout.splitlines() if line.startswith("==>")]

    assert steps(clone) == ["making", "installing", "installing"]
    assert steps(clone) == []

    with (clone / "pyproject.toml").open("a") as settings:
        settings.write("# changed\n")
    assert steps(clone) == ["installing"]

    assert steps(clone.rename(clone.with_name("moved"))) == ["making", "installing", "installing"]
