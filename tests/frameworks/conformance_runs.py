"""Running the cases that all platforms share, each group's in its environment: what test_conformance.py and test_gpus.py look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from opexec.machine.devices import SHARING
from tests.frameworks.environments import built
from tests.frameworks.groups import Group

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """What the cases left behind in a group's environment."""

    folder: Path
    failures: list[str]
    passed: int
    skipped: int

    @cached_property
    def written(self) -> dict[str, Any]:
        """What conformance.py wrote down of the models."""
        written: dict[str, Any] = json.loads((self.folder / "subjects.json").read_text())
        return written


class Groups:
    """Runs a file of cases for each group once, when it is first asked for."""

    def __init__(self, cases: str, groups: Mapping[str, Group], folder: Path) -> None:
        self._cases = cases
        self._groups = groups
        self._folder = folder
        self._runs: dict[str, Run] = {}

    def run(self, name: str) -> Run:
        if name not in self._runs:
            self._runs[name] = _run(self._cases, self._groups[name], self._folder / name)
        return self._runs[name]


def _run(cases_file: str, group: Group, folder: Path) -> Run:
    folder.mkdir()
    python = built(group.environment)
    if group.models == "onnx_subjects.py":  # the environment has no package that writes ONNX files
        code = "import onnx_models, pathlib, sys; onnx_models.write(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, folder], cwd=HERE, check=True)
    report = folder / "report.xml"
    # What it prints belongs to the first test of the group; pytest shows it if that fails.
    finished = subprocess.run(
        [python, "-I", HERE / "run.py", cases_file, "--quiet", "--tb=short", f"--junit-xml={report}"],
        cwd=folder,
        env={
            **SHARING,  # where there is a GPU, workers are to compute there too
            **os.environ,
            **group.env_vars,
            "OPEXEC_TEST_SUBJECTS": group.models,
            "OPEXEC_TEST_MODELS": str(folder),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(finished.stdout)
    assert report.exists(), finished.stdout
    cases = list(ElementTree.parse(report).iter("testcase"))
    failures = [
        f"{case.attrib['name']}: {child.attrib.get('message', '')}"
        for case in cases
        for child in case
        if child.tag in ("failure", "error")
    ]
    skipped = sum(child.tag == "skipped" for case in cases for child in case)
    return Run(folder, failures, len(cases) - len(failures) - skipped, skipped)
