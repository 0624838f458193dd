"""What callers with jax's arrays are promised holds where jax is installed: the tests in jax_callers.py run there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.callers import run_cases


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jax_in_the_caller(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        run_cases("jax_callers.py", "3.12", "jax>=0.12,<0.13", tmp_path / "report.xml")
