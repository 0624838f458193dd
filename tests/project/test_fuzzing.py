"""`make fuzz`: what the extra `fuzz` names is enough for it, and it goes by coverage."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opexec import Environment
from tests.frameworks.environments import resolved

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CLONE = Path(__file__).parents[2]


@pytest.mark.slow
def test_ten_seconds_of_malformed_packages(tmp_path: Path) -> None:
    project = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["fuzz"]]
    done = subprocess.run(
        [resolved(Environment("3.11", needs)), "tests/fuzz/packages.py", "10", tmp_path],
        cwd=CLONE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0 and list(tmp_path.iterdir()) == [], done.stdout[-3000:]
    runs = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    covered = [int(number) for number in re.findall(r" cov: (\d+)", done.stdout)]
    assert runs is not None and int(runs[1]) > 100, done.stdout[-3000:]
    assert covered[-1] > 100, done.stdout[-3000:]
