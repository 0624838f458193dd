"""What callers with torch tensors are promised holds where torch is installed: the tests marked `torch` run there."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path

import pytest

from opexec import BuildError, Environment
from tests.absent import absent

CLONE = Path(__file__).resolve().parents[2]
FILES = ("calling/test_arrays.py", "test_dtypes.py", "test_model_leases.py")
TORCH = "torch==2.13.0"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torch_in_the_caller(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    needs = [need for need in metadata.requires("opexec") or () if "extra ==" not in need]
    tools = ["hypothesis", "ml-dtypes", "pytest", "pytest-timeout"]
    report = tmp_path / "report.xml"
    with capfd.disabled():
        try:
            python = Environment(sys.executable, [TORCH, *needs, *tools]).resolve()
        except BuildError as error:
            absent(f"{TORCH} for {sys.executable}: {error}")
        print(f"\nwith {TORCH} in the caller:", flush=True)
        finished = subprocess.run(
            [
                python,
                "-m",
                "pytest",
                "--quiet",
                "-m",
                "torch",
                "-p",
                "no:cacheprovider",
                f"--junit-xml={report}",
            ]
            + [str(CLONE / "tests" / "opexec" / name) for name in FILES],
            cwd=CLONE,
            env={**os.environ, "PYTHONPATH": str(CLONE), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
        )
    assert finished.returncode == 0
    cases = list(ElementTree.parse(report).iter("testcase"))
    passed = {case.attrib["classname"].rsplit(".", 1)[-1] for case in cases if not list(case)}
    assert passed == {Path(name).stem for name in FILES}, "no test passed in one of the files"
