"""The data on which models are compared: inputs, and the outputs that are right where somebody knows them.

A sample is one ``.npz`` file. An array in it is an input or an expected output of the problem by its name; where a name is both,
``inputs/<name>`` and ``outputs/<name>`` tell them apart. The test data of the problem itself are samples too. Files are read one at a
time, so that there may be more of them than fit in memory. No pickle is read.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OpexecError, SpecError
from ..files.input_files import with_own_dtype
from ..problem import Problem
from ..spec import TensorSpec, bind_inputs, bind_outputs

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, eq=False)
class Sample:
    inputs: Arrays
    expected: Arrays
    """The outputs that are right, as far as they are known."""


@dataclass(frozen=True)
class SampleSource:
    """Where a sample comes from: its `name` for messages, and `read`, which raises OpexecError."""

    name: str
    read: Callable[[], Sample]


def find(problem: Problem, places: Sequence[str | os.PathLike[str]]) -> list[SampleSource]:
    """The ``.npz`` files in folders, by name, and those given themselves; without any place, the problem's own test data.

    Raises OpexecError where there are none.
    """
    if not places:
        if not problem.cases:
            raise OpexecError(f"the problem {problem.name!r} has no test data; give a folder of .npz files")
        return [
            SampleSource(f"case {number}", lambda case=case: Sample(case.inputs, case.outputs or {}))  # type: ignore[misc]
            for number, case in enumerate(problem.cases)
        ]
    files: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise OpexecError(f"there is no file or folder {place}; check the path")
        inside = sorted(place.glob("*.npz")) if place.is_dir() else [place]
        if not inside:
            raise OpexecError(f"{place} has no .npz files; each is one sample, with an array for each input")
        files += inside
    return [SampleSource(str(file), lambda file=file: _read(problem, file)) for file in files]  # type: ignore[misc]


def _read(problem: Problem, file: Path) -> Sample:
    try:
        with np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("expected an .npz file")
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise _unreadable(file, error) from error
    except (AttributeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(file, error) from error
    try:
        return _sorted(problem, arrays)
    except SpecError as error:
        raise SpecError(f"{file}: {error}") from None


def _sorted(problem: Problem, arrays: dict[str, np.ndarray[Any, Any]]) -> Sample:
    """The arrays, told apart and checked against the problem's specs. Raises SpecError."""
    sides = {"inputs": problem.inputs, "outputs": problem.outputs}
    found: dict[str, dict[str, np.ndarray[Any, Any]]] = {"inputs": {}, "outputs": {}}
    for key, array in arrays.items():
        side, name = _place(key, sides)
        spec = next(spec for spec in sides[side] if spec.name == name)
        found[side][name] = with_own_dtype(array, spec)
    symbols = bind_inputs(problem.inputs, _signatures(found["inputs"]))
    known = [spec for spec in problem.outputs if spec.name in found["outputs"]]
    bind_outputs(known, _signatures(found["outputs"]), symbols)
    return Sample(found["inputs"], found["outputs"])


def _place(key: str, sides: Mapping[str, tuple[TensorSpec, ...]]) -> tuple[str, str]:
    prefix, _, rest = key.partition("/")
    if prefix in sides and any(spec.name == rest for spec in sides[prefix]):
        return prefix, rest
    meant = [side for side, specs in sides.items() if any(spec.name == key for spec in specs)]
    if len(meant) == 2:
        raise SpecError(
            f"the array {key!r} may be the input or the output; call it 'inputs/{key}' or 'outputs/{key}'"
        )
    if not meant:
        names = ", ".join(repr(spec.name) for specs in sides.values() for spec in specs)
        raise SpecError(
            f"the array {key!r} is neither an input nor an output of the problem, which has {names}"
        )
    return meant[0], key


def _signatures(values: Arrays) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    return {name: (array.dtype, array.shape) for name, array in values.items()}


def _unreadable(file: Path, error: Exception) -> OpexecError:
    system = error.strerror if isinstance(error, OSError) else None
    return OpexecError(
        f"{file} cannot be read as arrays without objects: {system or error or type(error).__name__}"
    )
