"""Packagers take objects of a framework where that is installed: the tests in package_tensorflow_callers.py run there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.callers import run_cases


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tensorflow_in_the_caller(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        run_cases("package_tensorflow_callers.py", "3.12", "tensorflow-cpu==2.21.0", tmp_path / "report.xml")
