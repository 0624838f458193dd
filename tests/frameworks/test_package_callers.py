"""Packagers take objects of a framework where that is installed: the tests in package_*_callers.py run there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.callers import run_cases
from tests.frameworks.environments import JAX, TORCH

CALLERS = {
    "tensorflow": ("3.12", ["tensorflow-cpu==2.21.0"]),
    "torch": ("3.11", [TORCH]),
    "jax": ("3.12", [JAX, "flatbuffers"]),
    "onnx": ("3.12", ["onnx>=1.16", "onnxruntime>=1.20"]),
    "sklearn": ("3.13", ["scikit-learn>=1.7", "xgboost-cpu>=3", "lightgbm>=4"]),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("framework", CALLERS)
def test_packagers_in_a_caller_with(
    framework: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    python, requirements = CALLERS[framework]
    with capfd.disabled():
        run_cases(f"package_{framework}_callers.py", python, requirements, tmp_path / "report.xml")
