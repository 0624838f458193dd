"""Which version of a framework an interpreter has, told from what is installed there: nothing of it is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..errors import BuildError

#: Platform -> what it is called, and the packages that bring it.
FRAMEWORKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "tensorflow": (
        "tensorflow",
        (
            *("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-rocm", "tensorflow-macos"),
            *("tensorflow-cpu-aws", "intel-tensorflow", "tf-nightly", "tf-nightly-cpu"),
        ),
    ),
    "torchscript": ("torch", ("torch",)),
    "torch": ("torch", ("torch",)),
    "keras": ("keras", ("keras", "keras-nightly", "tf-keras")),
    "onnx": (
        "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "ort-nightly"),
    ),
    "jax": ("jax", ("jax",)),
    "sklearn": ("scikit-learn", ("scikit-learn",)),
    "xgboost": ("xgboost", ("xgboost", "xgboost-cpu")),
    "lightgbm": ("lightgbm", ("lightgbm",)),
    "caffe2": ("torch", ("torch",)),
    "tensorrt": ("tensorrt", ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")),
}

# Runs on any Python from 3.6 on.
_ASK = r"""
import json, os, re, sys
found = {}
for folder in sys.path:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        continue
    for name in names:
        match = re.match(r"(.+?)-(\d[^-]*?)(?:-py[\d.]+(?:-.*)?)?\.(?:dist|egg)-info$", name)
        if match:
            found.setdefault(re.sub(r"[-_.]+", "-", match.group(1)).lower(), match.group(2))
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], "packages": found}))
"""
_ANSWER_S = 60


@dataclass(frozen=True)
class Installed:
    """What an interpreter has."""

    python: str
    packages: Mapping[str, str]
    """Version by normalised name."""

    def version(self, framework: str) -> str | None:
        """The version of what runs a platform's models (a key of `FRAMEWORKS`, or ``"python"``); None if it is not there."""
        if framework == "python":
            return self.python
        for package in FRAMEWORKS[framework][1]:
            if package in self.packages:
                return self.packages[package]
        return None


def installed(interpreter: Path) -> Installed:
    """Ask an interpreter. Raises BuildError if it does not answer."""
    try:
        asked = subprocess.run(
            [interpreter, "-I", "-c", _ASK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
        )
        answer = json.loads(asked.stdout)
        return Installed(answer["python"], answer["packages"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise BuildError(f"{interpreter} does not tell what is installed there: {error}") from error


def here() -> Installed:
    """What this process can import, which may be more than a worker in its interpreter could."""
    found = {one.metadata["Name"]: one.version for one in metadata.distributions() if one.metadata["Name"]}
    return Installed("{}.{}.{}".format(*sys.version_info), normalised(found))


def called(framework: str) -> str:
    """What the versions of a platform are versions of."""
    return "Python" if framework == "python" else FRAMEWORKS[framework][0]


def normalised(packages: Mapping[str, str]) -> dict[str, str]:
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in packages.items()}
