"""Trying a package's model on the test data that comes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelError, OpexecError, PackageError, SpecError
from ..model import Model
from ..package import TEST_DATA, Package
from ..packages.test_data import read_test_data
from ..problem_data import compare_outputs
from ..spec import bind_inputs, bind_outputs


@dataclass(frozen=True)
class Trial:
    """How a model did on its package's test data."""

    wrong: tuple[str, ...]
    """What is wrong with the answer, a line each; nothing if it is right."""
    misfits: tuple[str, ...]
    """Where the test data itself does not fit the package's specs, as it does in packages from when nobody checked."""


def try_package(package: Package, model: Model, *, rtol: float = 1e-5, atol: float = 1e-8) -> Trial:
    """Run a package's model, loaded with ``check=False``, on the test data, which a worker of the same interpreter reads.

    Texts and whole numbers must be equal, other numbers close (`numpy.allclose`). What the call raises is told as a wrong answer.
    Raises PackageError where there is no test data, or it cannot be read.
    """
    try:
        inputs, expected = read_test_data(package, model.workers[0].interpreter)
    except ModelError as error:
        raise PackageError(
            f"cannot be read: {error.type}: {error.message}", package=str(package.path), file=TEST_DATA
        ) from error
    misfits = _misfits(package, model, inputs, expected)
    try:
        outputs = model.infer(inputs)
    except OpexecError as error:
        return Trial((str(error).partition("\n\n")[0],), misfits)
    return Trial(tuple(compare_outputs(expected or {}, outputs, rtol=rtol, atol=atol)), misfits)


def _misfits(
    package: Package, model: Model, inputs: Mapping[str, Any], expected: Mapping[str, Any] | None
) -> tuple[str, ...]:
    specs = (
        model.inputs if model.inputs is not None else package.inputs
    )  # the model knows what may be left out
    try:
        symbols = bind_inputs(specs, _signatures(inputs))
        if expected is not None:
            bind_outputs(package.outputs, _signatures(expected), symbols)
    except SpecError as error:
        return (str(error),)
    return ()


def _signatures(values: Mapping[str, Any]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    return {name: (array.dtype, array.shape) for name, array in values.items()}
