"""A package's test data: written, read and run, always in workers, for it is a pickle (`package.TEST_DATA`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ..loading import load as loading
from ..model import Model
from ..package import TEST_DATA, Package
from ..problem_data import compare_outputs
from . import loading as package_loading

PLATFORM = "opexec.workers.platforms.package_test_data"

Arrays = dict[str, Any]


def read_test_data(
    package: Package, interpreter: str | os.PathLike[str] | None = None
) -> tuple[Arrays, Arrays | None]:
    """The inputs and the expected outputs (None: any) of a package, read by a worker in `interpreter`: by default where its model runs.

    Raises PackageError if it has none, ModelError if the file cannot be read or asks for anything but numpy arrays and plain values,
    LoadError, WorkerDied.
    """
    if not package.has_test_data:
        raise PackageError(
            "is missing; the package has no test data", package=str(package.path), file=TEST_DATA
        )
    if interpreter is None:
        interpreter = package_loading.choose(package, None).interpreter
    path = package.folder() / TEST_DATA
    bytes_tensors = [
        f"{part}/{spec.name}"
        for part, specs in (("test_input", package.inputs), ("test_output", package.outputs))
        for spec in specs
        if spec.dtype == "bytes"
    ]
    with loading.load(
        path, platform=PLATFORM, env=interpreter, name="test-data", options={"bytes": bytes_tensors}
    ) as reader:
        content = reader()
        return _kept(content["test_input"]), None if content["test_output"] is None else _kept(
            content["test_output"]
        )


def write_test_data(
    path: Path,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any] | None,
    interpreter: str | os.PathLike[str] | None = None,
) -> None:
    """Write the file `path`, in a worker. Raises LoadError, ModelError, WorkerDied."""
    tensors = {f"test_input/{name}": value for name, value in inputs.items()}
    tensors.update({f"test_output/{name}": value for name, value in (outputs or {}).items()})
    with loading.load(
        path, platform=PLATFORM, env=interpreter, name="test-data", options={"write": True}
    ) as writer:
        writer(**tensors)


def check_answers(model: Model, inputs: Mapping[str, Any], expected: Mapping[str, Any] | None) -> list[str]:
    """Run a model on test data; what is different in its answer, a line an output. Raises what the call raises."""
    answer = model.infer(dict(inputs))
    return [] if expected is None else compare_outputs(expected, answer)


def _kept(arrays: Mapping[str, Any]) -> Arrays:
    """Copies, which outlive the worker."""
    return {name: array.copy() for name, array in arrays.items()}
