"""Every example runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*.py"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example: Path, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout


def test_there_are_examples() -> None:
    assert EXAMPLES
