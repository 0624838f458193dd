"""Test data of problems: numbers in an ``.npz``, texts in JSON, never a pickle; and what two results differ in.

In a problem's JSON file a case is ``{"inputs": {...}, "outputs": {...}}``; `outputs` may be absent or null. A value is a number, a text, or
nested lists of them, and becomes an array of the spec's dtype; ``bytes`` are written in base64. Arrays in the ``.npz`` are called
``<number of the case>/inputs/<name>`` and belong to their case too. What numpy has no own dtype for (bfloat16, the float8 kinds) lies
there as bits, and gets its dtype back from the spec.
"""

from __future__ import annotations

import base64
import binascii
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .calling import arrays
from .errors import BuildError, PackageError, SpecError
from .files import caches
from .ipc import wire
from .packages.json import Reader
from .packages.names import problem_of
from .spec import TensorSpec, bind_inputs, bind_outputs

Arrays = Mapping[str, np.ndarray[Any, Any]]

_SIDES = ("inputs", "outputs")


@dataclass(frozen=True, eq=False)
class Case:
    """Inputs, and the outputs that they should give."""

    inputs: Arrays
    outputs: Arrays | None
    """None: any outputs are right that fit the spec."""


def make_case(
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any] | None,
    input_specs: tuple[TensorSpec, ...],
    output_specs: tuple[TensorSpec, ...],
) -> Case:
    """A case of what Python code gives. Raises SpecError for what cannot become an array."""
    return Case(
        _as_arrays(inputs, input_specs), None if outputs is None else _as_arrays(outputs, output_specs)
    )


def check_case(case: Case, input_specs: tuple[TensorSpec, ...], output_specs: tuple[TensorSpec, ...]) -> None:
    """Raise SpecError unless the inputs fit their specs, and the outputs, as far as they are given, theirs."""
    symbols = bind_inputs(input_specs, _signatures(case.inputs))
    if case.outputs is not None:
        given = [spec for spec in output_specs if spec.name in case.outputs]
        bind_outputs(given, _signatures(case.outputs), symbols)


def compare_outputs(
    expected: Arrays, got: Mapping[str, Any], *, rtol: float = 1e-5, atol: float = 1e-8
) -> list[str]:
    """What is different in `got`, a line a tensor; none for a right answer.

    Every expected output must be there, with its shape. Texts, bytes and whole numbers must be equal; other numbers close, as
    `numpy.allclose` has it (NaN equals NaN). Outputs that are not expected do not matter.
    """
    lines = []
    for name, right in expected.items():
        if name not in got:
            lines.append(f"output {name!r} is missing")
            continue
        line = _difference(np.asarray(right), np.asarray(got[name]), rtol, atol)
        if line is not None:
            lines.append(f"output {name!r}: {line}")
    return lines


def _difference(
    right: np.ndarray[Any, Any], got: np.ndarray[Any, Any], rtol: float, atol: float
) -> str | None:
    if right.shape != got.shape:
        return f"expected the shape {list(right.shape)}, got {list(got.shape)}"
    if _is_number(right) != _is_number(got):
        return f"expected {right.dtype}, got {got.dtype}"
    if _is_number(right):
        wide = np.complex128 if "c" in (right.dtype.kind, got.dtype.kind) else np.float64
        exact = right.dtype.kind in "iub" and got.dtype.kind in "iub"
        # Whole numbers of 64 bits are more than a float64 tells apart.
        equal = (
            right == got
            if exact
            else np.isclose(right.astype(wide), got.astype(wide), rtol, atol, equal_nan=True)
        )
    else:
        equal = np.asarray(right == got)
    wrong = np.flatnonzero(~np.asarray(equal, bool))
    if not wrong.size:
        return None
    at = np.unravel_index(wrong[0], right.shape)
    place = f" at {[int(index) for index in at]}" if at else ""
    expected, came = _shown(right[at]), _shown(got[at])
    return f"{wrong.size} of {right.size} elements differ: expected {expected}{place}, got {came}"


def _shown(element: Any) -> str:
    """A number as a number (numpy 2 calls it ``np.float32(4.0)``), a text in quotes."""
    if isinstance(element, str | bytes):
        return repr(element.item() if isinstance(element, np.generic) else element)
    return str(element)


def _is_number(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind in "biufc" or wire.extension_name(array.dtype) is not None


# ---- files


def read_arrays(reader: Reader, problem: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of the ``.npz`` that the key ``arrays`` names, beside the problem's file. Raises PackageError."""
    if reader.content.get("arrays") is None:
        return {}
    name = reader.text("arrays")
    if problem_of(name) is not None:
        raise reader.refused("arrays", "a path relative to this file", name)
    try:
        with np.load(problem.parent / name, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("expected an .npz file")
            return {key: archive[key] for key in archive.files}
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise PackageError(
            f"cannot be read as arrays without objects: {error}", package=reader.package, file=name
        ) from None


def read_case(
    reader: Reader,
    index: int,
    entry: object,
    stored: Arrays,
    input_specs: tuple[TensorSpec, ...],
    output_specs: tuple[TensorSpec, ...],
) -> Case:
    """One entry of ``test_data``. Raises PackageError, naming the field."""
    place = f"test_data[{index}]"
    if not isinstance(entry, dict) or not set(entry) <= set(_SIDES):
        raise reader.refused(place, 'an object with "inputs" and "outputs"', entry)
    sides: dict[str, Any] = {}
    for side, specs in zip(_SIDES, (input_specs, output_specs)):
        values = entry.get(side)
        if values is not None and not isinstance(values, dict):
            raise reader.refused(f"{place}.{side}", "an object of names and values", values)
        prefix = f"{index}/{side}/"
        numbers = {key[len(prefix) :]: array for key, array in stored.items() if key.startswith(prefix)}
        found = reader.attempt(f"{place}.{side}", _side, values or {}, numbers, specs)
        sides[side] = None if side == "outputs" and values is None and not numbers else found
    case = Case(sides["inputs"], sides["outputs"])
    reader.attempt(place, check_case, case, input_specs, output_specs)
    return case


def write_cases(
    cases: tuple[Case, ...],
    archive: Path,
    input_specs: tuple[TensorSpec, ...],
    output_specs: tuple[TensorSpec, ...],
) -> dict[str, Any]:
    """Write numbers to `archive`, if there are any; returns the keys ``arrays`` and ``test_data`` of the problem's file."""
    numbers: dict[str, np.ndarray[Any, Any]] = {}
    entries = []
    for index, case in enumerate(cases):
        entry: dict[str, Any] = {}
        for side, specs in zip(_SIDES, (input_specs, output_specs)):
            values: Arrays | None = getattr(case, side)
            if values is None:
                continue
            entry[side] = {}
            by_name = {spec.name: spec for spec in specs}
            for name, array in values.items():
                if by_name[name].dtype in ("string", "bytes"):
                    entry[side][name] = _texts_to_json(array, by_name[name].dtype)
                else:
                    numbers[f"{index}/{side}/{name}"] = _as_bits(array)
        entries.append(entry)
    content: dict[str, Any] = {}
    if numbers:
        _write_npz(archive, numbers)
        content["arrays"] = archive.name
    if entries:
        content["test_data"] = entries
    return content


def _write_npz(archive: Path, numbers: Arrays) -> None:
    temporary = caches.scratch_beside(archive)
    try:
        with open(temporary, "xb") as output, zipfile.ZipFile(output, "w") as members:
            # numpy's own savez stamps each member with the time of writing, and takes no key called "file".
            for key in sorted(numbers):
                info = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
                with members.open(info, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, numbers[key], allow_pickle=False)
        os.replace(temporary, archive)
    except OSError as error:
        raise BuildError(f"cannot write {archive}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _as_arrays(values: Mapping[str, Any], specs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray[Any, Any]]:
    by_name = {spec.name: spec for spec in specs}
    return {name: arrays.to_numpy(value, by_name.get(name), name) for name, value in values.items()}


def _side(
    values: Mapping[str, Any], numbers: Arrays, specs: tuple[TensorSpec, ...]
) -> dict[str, np.ndarray[Any, Any]]:
    both = values.keys() & numbers.keys()
    if both:
        raise SpecError(f"{sorted(both)[0]!r} is both here and among the arrays")
    by_name = {spec.name: spec for spec in specs}
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, array in numbers.items():
        found[name] = _from_bits(array, by_name.get(name))
    for name, value in values.items():
        spec = by_name.get(name)
        value = _from_base64(value) if spec is not None and spec.dtype == "bytes" else value
        found[name] = arrays.to_numpy(value, spec, name)
    return {spec.name: found[spec.name] for spec in specs if spec.name in found} | found


def _signatures(values: Arrays) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    return {name: (array.dtype, array.shape) for name, array in values.items()}


def _as_bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array as npy files can hold it."""
    if wire.extension_name(array.dtype) is None:
        return array
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)


def _from_bits(array: np.ndarray[Any, Any], spec: TensorSpec | None) -> np.ndarray[Any, Any]:
    if spec is None or spec.dtype not in wire.EXTENSIONS or array.dtype.kind != "u":
        return array
    if array.dtype.itemsize != wire.EXTENSIONS[spec.dtype]:
        raise SpecError(f"{spec.name!r}: expected the bits of {spec.dtype}, got {array.dtype}")
    return np.ascontiguousarray(array).view(wire.extension_dtype(spec.dtype)).reshape(array.shape)


def _texts_to_json(array: np.ndarray[Any, Any], dtype: str) -> Any:
    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return base64.b64encode(value).decode() if dtype == "bytes" else str(value)

    return plain(array.tolist())


def _from_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_base64(item) for item in value]
    if not isinstance(value, str):
        raise SpecError(f"expected bytes in base64, got {value!r}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SpecError(f"expected bytes in base64, got {value!r}: {error}") from None
