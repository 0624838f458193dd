"""The benchmark of supervision, shortened: every figure is found, beside its goal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

SHORT = [
    "--kills",
    "2",
    "--starts",
    "1",
    "--callers",
    "2",
    "--idle-seconds",
    "0.3",
    "--rounds",
    "2",
    "--calls",
    "20",
]
WITH_A_GOAL = [
    "death seen by",
    "back in service",
    "worker gone",
    "8 idle workers",
    "8 idle workers with max_calls",
]
WITHOUT = [
    "of that, after the kernel",
    "load of the model",
    "64 B call, as it comes",
    "64 B call, replicas=2",
]


def test_each_figure_is_found() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "supervision", *SHORT],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for what in WITH_A_GOAL:
        assert any(what in line and "met" in line.lower() for line in lines), done.stdout
    for what in WITHOUT:
        assert any(what in line and "met" not in line.lower() for line in lines), done.stdout
