"""What callers with cupy's arrays are promised holds on a GPU: the tests in cupy_callers.py run where cupy is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.callers import run_cases
from tests.gpus import needs_gpu


@needs_gpu
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cupy_in_the_caller(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        run_cases("cupy_callers.py", "3.12", "cupy-cuda12x[ctk]>=13", tmp_path / "report.xml")
