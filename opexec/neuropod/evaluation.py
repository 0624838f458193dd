"""Trying packages on data, as ``neuropod.utils.eval_utils`` has it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from ..errors import OpexecError
from ..package import read
from ..packages.test_data import read_test_data
from ..problem_data import compare_outputs
from .errors import also
from .loader import load_neuropod

_Path = str | os.PathLike[str]


def load_and_test_neuropod(
    neuropod_path: _Path,
    test_input_data: Mapping[str, Any],
    test_expected_out: Mapping[str, Any] | None = None,
    neuropod_load_args: Mapping[str, Any] | None = None,
) -> None:
    """Run a package on these inputs; `neuropod_load_args` are arguments of `load_neuropod`.

    Raises ValueError if an output is not as expected, and what `load_neuropod` and `infer` raise.
    """
    with load_neuropod(neuropod_path, **(neuropod_load_args or {})) as neuropod:
        wrong = compare_outputs(test_expected_out or {}, neuropod.infer(test_input_data))
    if wrong:
        raise ValueError(
            f"{os.fspath(neuropod_path)}: the model's answer is not what was expected: {'; '.join(wrong)}"
        )


def load_test_data(neuropod_path: _Path) -> dict[str, Any] | None:
    """The test data in a package, ``{"test_input": {...}, "test_output": {...} or None}``; None if it has none.

    A worker reads them, for they are a pickle. Raises what is a PackageError or a ModelError, and a RuntimeError.
    """
    try:
        package = read(neuropod_path)
        if not package.has_test_data:
            return None
        inputs, outputs = read_test_data(package, sys.executable)
    except OpexecError as error:
        raise also(error, RuntimeError) from error.__cause__
    return {"test_input": inputs, "test_output": outputs}
