"""Running tests of a caller that has some framework: in an environment of its own, with opexec's needs and pytest beside the framework."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path

from opexec import BuildError, Environment
from tests.absent import absent

CLONE = Path(__file__).resolve().parents[2]
TOOLS = ["hypothesis", "ml-dtypes", "pytest", "pytest-timeout"]


def run_cases(file: str, python: str, requirements: str | list[str], report: Path) -> None:
    """Run the tests in `file`, beside this one, where `requirements` are installed; all must pass, and none may be skipped."""
    wanted = [requirements] if isinstance(requirements, str) else requirements
    needs = [need for need in metadata.requires("opexec") or () if "extra ==" not in need]
    try:
        interpreter = Environment(python, [*wanted, *needs, *TOOLS]).resolve()
    except BuildError as error:
        absent(f"{', '.join(wanted)} for Python {python}: {error}")
    print(f"\nwith {', '.join(wanted)} in the caller:", flush=True)
    command = [interpreter, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    finished = subprocess.run(
        [*command, Path(__file__).with_name(file)],
        cwd=CLONE,
        env={
            **os.environ,
            "PYTHONPATH": str(CLONE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        stdin=subprocess.DEVNULL,
    )
    assert finished.returncode == 0
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert cases and not any(list(case) for case in cases), "a test was skipped"
