"""The tests of ipc and workers pass, for real, in the oldest and the newest interpreter that a worker may run in."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from opexec import BuildError, Environment
from opexec.environments.interpreter_search import find
from tests.absent import absent

RUNNER = Path(__file__).with_name("run.py")
REQUIREMENTS = [
    "hypothesis",
    "ml-dtypes; python_version >= '3.9'",  # for older ones it would have to be compiled
    "msgpack",
    "numpy",
    "posix-ipc",
    "pytest",
    "pytest-timeout",
]


def interpreter(version: str) -> str:
    """Path of an interpreter of that version; CI must have it."""
    try:
        return str(find(version).path)
    except BuildError as error:
        absent(f"Python {version}: {error}")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", ["3.7", "3.13"])
def test_ipc_and_workers_pass_their_tests_there(
    version: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.xml"
    with capfd.disabled():
        python = Environment(interpreter(version), REQUIREMENTS).resolve()
        print(f"\nPython {version} runs tests/ipc and tests/workers:", flush=True)
        finished = subprocess.run(
            [python, "-I", RUNNER, "--quiet", f"--junit-xml={report}"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
        )
    assert finished.returncode == 0
    passed = {"ipc": 0, "workers": 0}
    for case in ElementTree.parse(report).iter("testcase"):
        room = case.attrib["classname"].split(".")[1]
        passed[room] += all(child.tag not in ("failure", "error", "skipped") for child in case)
    assert all(passed.values()), f"no test passed in a room: {passed}"
