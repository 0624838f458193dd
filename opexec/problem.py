"""Problems: two specs that any number of models may implement, with test data to try them on.

    {
        "name": "addition",
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["n"]}, {"name": "y", "dtype": "float32", "shape": ["n"]}],
        "outputs": [{"name": "sum", "dtype": "float32", "shape": ["n"]}],
        "arrays": "addition.npz",
        "test_data": [{"inputs": {"x": [1, 2], "y": [3, 4]}, "outputs": {"sum": [4, 6]}}]
    }

`Problem.check` says whether the specs of a model implement a problem: whether every call that fits the problem's inputs fits the
model's, and what the model then gives fits the problem's outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import PackageError
from .files import caches
from .packages.config import parse_spec
from .packages.json import Reader, parse_json, to_json
from .problem_data import Case, check_case, make_case, read_arrays, read_case, write_cases
from .spec import Dim, InputSpecs, TensorSpec, parse_specs

_KEYS = ("name", "inputs", "outputs", "arrays", "test_data")


@dataclass(frozen=True)
class Difference:
    """One way in which a model is not what a problem asks for."""

    tensor: str | None
    """The input's or output's name; None for what concerns all of them."""
    kind: str
    """"input" or "output"."""
    text: str

    def __str__(self) -> str:
        return (
            f"{self.kind}s: {self.text}"
            if self.tensor is None
            else f"{self.kind} {self.tensor!r}: {self.text}"
        )


@dataclass(frozen=True)
class Fit:
    """What `Problem.check` found."""

    differences: tuple[Difference, ...]
    """Why some call that fits the problem would fail."""
    unproven: tuple[Difference, ...]
    """Where the model's spec says less than the problem: only a call shows whether it fits."""

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the problem."""
        return not self.differences

    @property
    def proven(self) -> bool:
        """Whether the specs alone show that every call will fit."""
        return not self.differences and not self.unproven

    def __str__(self) -> str:
        lines = [str(difference) for difference in self.differences]
        lines += [f"{difference} (not certain)" for difference in self.unproven]
        return "\n".join(lines) or "implements the problem"


@dataclass(frozen=True, init=False)
class Problem:
    """What a model takes and gives, and what it should answer to some inputs.

    `inputs`, `outputs`: `TensorSpec` or dicts of name, dtype and shape. `cases`: pairs of inputs and outputs (a mapping of names to arrays,
    or to what becomes one by the spec; outputs may be None, and then any that fit the spec are right). Raises SpecError.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    cases: tuple[Case, ...]

    def __init__(
        self,
        name: str,
        inputs: Iterable[TensorSpec | Mapping[str, Any]],
        outputs: Iterable[TensorSpec | Mapping[str, Any]],
        cases: Iterable[tuple[Mapping[str, Any], Mapping[str, Any] | None]] = (),
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "inputs", parse_specs(inputs, "input"))
        object.__setattr__(self, "outputs", parse_specs(outputs, "output"))
        made = [make_case(given, expected, self.inputs, self.outputs) for given, expected in cases]
        for case in made:
            check_case(case, self.inputs, self.outputs)
        object.__setattr__(self, "cases", tuple(made))

    def check(self, inputs: Iterable[TensorSpec] | None, outputs: Iterable[TensorSpec] | None) -> Fit:
        """Whether a model with these specs (None: it tells none) implements the problem.

        A model may take more than the problem gives (any size, where the problem has a number or a symbol) and give less than it
        allows. Its symbols may have other names. Outputs that the problem does not ask for do not matter; inputs that it does not give
        do, unless a call may leave them out. A problem's null is any size, each one for itself: a model whose symbol ties two of them
        together does not implement it.
        """
        return _Comparison(self).run(inputs, outputs)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Problem:
        """Read a problem's JSON file, and the ``.npz`` beside it that the key ``arrays`` names. No pickle is read.

        Raises PackageError, naming the file and the field.
        """
        where = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
        package, file = str(where.parent), where.name
        try:
            text = where.read_bytes()
        except OSError as error:
            raise PackageError(f"cannot be read: {error.strerror}", package=package, file=file) from error
        reader = Reader(package, file, parse_json(text, package, file))
        for key in reader.content:
            if key not in _KEYS:
                raise reader.refused(key, f"one of the keys {', '.join(_KEYS)}", reader.content[key])
        inputs, outputs = (_specs(reader, kind) for kind in ("input", "output"))
        arrays = read_arrays(reader, where)
        entries = reader.content.get("test_data", [])
        if not isinstance(entries, list):
            raise reader.refused("test_data", "a list", entries)
        cases = [
            read_case(reader, index, entry, arrays, inputs, outputs) for index, entry in enumerate(entries)
        ]
        problem = cls(reader.text("name"), inputs, outputs)
        object.__setattr__(problem, "cases", tuple(cases))
        return problem

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the problem as JSON, and its numbers, if it has test data, to an ``.npz`` of the same name beside it.

        Both replace what is there. Raises BuildError where they cannot be written.
        """
        where = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
        content: dict[str, Any] = {
            "name": self.name,
            "inputs": [spec.to_dict() for spec in self.inputs],
            "outputs": [spec.to_dict() for spec in self.outputs],
        }
        content.update(write_cases(self.cases, where.with_suffix(".npz"), self.inputs, self.outputs))
        caches.write_text(where, to_json(content).decode())


def _specs(reader: Reader, kind: str) -> tuple[TensorSpec, ...]:
    key = f"{kind}s"
    found = []
    for index, entry in enumerate(reader.list(key)):
        if not isinstance(entry, dict):
            raise reader.refused(f"{key}[{index}]", "an object with name, dtype and shape", entry)
        found.append(parse_spec(Reader(reader.package, reader.file, entry, f"{key}[{index}].")))
    specs: tuple[TensorSpec, ...] = reader.attempt(key, parse_specs, found, kind)
    return specs


# ---- comparing specs

# What a size is known to be, in the problem's own terms: a number; a symbol of the problem ("symbol", name); a null of it, known by its
# place ("any", tensor, axis); or a symbol of the model that no input gives a value to ("model", name).
_Size = int | tuple[Any, ...]


class _Comparison:
    """The problem's sizes are taken as they come in any call, and followed through the model's spec."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._differences: list[Difference] = []
        self._unproven: list[Difference] = []
        self._bound: dict[str, tuple[_Size, str]] = {}  # the model's symbol -> its size, and where it got it
        self._result: dict[
            str, tuple[_Size, str]
        ] = {}  # the problem's symbol that only outputs have -> the same

    def run(self, inputs: Iterable[TensorSpec] | None, outputs: Iterable[TensorSpec] | None) -> Fit:
        if inputs is None:
            self._unproven.append(Difference(None, "input", "the model does not tell what it takes"))
        else:
            optional = inputs.optional if isinstance(inputs, InputSpecs) else frozenset()
            self._compare_inputs({spec.name: spec for spec in inputs}, optional)
        if outputs is None:
            self._unproven.append(Difference(None, "output", "the model does not tell what it gives"))
        else:
            self._compare_outputs({spec.name: spec for spec in outputs})
        return Fit(tuple(self._differences), tuple(self._unproven))

    def _compare_inputs(self, model: Mapping[str, TensorSpec], optional: frozenset[str]) -> None:
        given = {spec.name: spec for spec in self._problem.inputs}
        for name, spec in given.items():
            if name not in model:
                self._differs("input", name, f"the model takes no such input{_others(model, given)}")
            elif self._same_kind("input", spec, model[name]):
                self._compare_input_shape(spec, model[name])
        for name in model:
            if name not in given and name not in optional:
                self._differs("input", name, "the model needs it, and the problem does not give it")

    def _same_kind(self, kind: str, problem: TensorSpec, model: TensorSpec) -> bool:
        """Whether the shapes can be compared axis by axis."""
        verb = "takes" if kind == "input" else "gives"
        if problem.dtype != model.dtype:
            self._differs(
                kind, problem.name, f"the problem has {problem.dtype}, the model {verb} {model.dtype}"
            )
        wide, narrow = (model.shape, problem.shape) if kind == "input" else (problem.shape, model.shape)
        if wide is None:
            return False
        if narrow is None:
            text = f"the problem has {_shape(problem)}, the model {verb} {_shape(model)}"
            if kind == "input":
                self._differs(kind, problem.name, text)
            else:
                self._unproven.append(Difference(problem.name, kind, text))
            return False
        if len(wide) != len(narrow):
            self._differs(
                kind,
                problem.name,
                f"the problem has the rank {len(problem.shape or ())}, the model {verb} {len(model.shape or ())}",
            )
            return False
        return True

    def _compare_input_shape(self, problem: TensorSpec, model: TensorSpec) -> None:
        for axis, (has, takes) in enumerate(zip(problem.shape or (), model.shape or ())):
            size = _size_in_problem(has, problem.name, axis)
            place = f"axis {axis} of {problem.name!r}"
            if isinstance(takes, int) and size != takes:
                self._differs(
                    "input",
                    problem.name,
                    f"axis {axis} is {_dim(has)} in the problem, the model takes {takes} alone",
                )
            elif isinstance(takes, str):
                known, origin = self._bound.setdefault(takes, (size, place))
                if known != size:
                    self._differs(
                        "input",
                        problem.name,
                        f"axis {axis} is {_dim(has)} in the problem; for the model it must be the same as {origin} (its {takes}), "
                        f"which is {_said(known)}",
                    )

    def _compare_outputs(self, model: Mapping[str, TensorSpec]) -> None:
        wanted = {spec.name: spec for spec in self._problem.outputs}
        for name, spec in wanted.items():
            if name not in model:
                self._differs("output", name, f"the model gives no such output{_others(model, wanted)}")
            elif self._same_kind("output", spec, model[name]):
                for axis, (wants, gives) in enumerate(zip(spec.shape or (), model[name].shape or ())):
                    self._compare_output_axis(name, axis, wants, gives)

    def _compare_output_axis(self, name: str, axis: int, wants: Dim, gives: Dim) -> None:
        if wants is None:
            return
        size = self._size_given(name, axis, gives)
        if isinstance(wants, str) and wants not in _symbols(self._problem.inputs):
            wanted, origin = self._result.setdefault(wants, (size, f"axis {axis} of {name!r}"))
            text = f"axis {axis} is {_said(size)}; the problem has {wants} for it and for {origin}, which is {_said(wanted)}"
        else:
            wanted = ("symbol", wants) if isinstance(wants, str) else wants
            text = f"axis {axis} is {_dim(wants)} in the problem, the model gives {_said(size)}"
        if size != wanted:
            if _is_open(size) or _is_open(wanted):
                self._unproven.append(Difference(name, "output", text))
            else:
                self._differs("output", name, text)

    def _size_given(self, name: str, axis: int, gives: Dim) -> _Size:
        if isinstance(gives, int):
            return gives
        if isinstance(gives, str):
            return self._bound[gives][0] if gives in self._bound else ("model", gives)
        return ("model", name, axis)

    def _differs(self, kind: str, name: str, text: str) -> None:
        self._differences.append(Difference(name, kind, text))


def _symbols(specs: Iterable[TensorSpec]) -> set[str]:
    return {dim for spec in specs for dim in spec.shape or () if isinstance(dim, str)}


def _size_in_problem(dim: Dim, name: str, axis: int) -> _Size:
    if isinstance(dim, int):
        return dim
    return ("symbol", dim) if isinstance(dim, str) else ("any", name, axis)


def _is_open(size: _Size) -> bool:
    """Whether only a call tells the size, as no input decides it."""
    return isinstance(size, tuple) and size[0] == "model"


def _said(size: _Size) -> str:
    if isinstance(size, int):
        return str(size)
    if size[0] == "any":
        return f"any size, that of axis {size[2]} of {size[1]!r}"
    if size[0] == "symbol":
        return f"the problem's {size[1]}"
    return f"its own {size[1]}" if len(size) == 2 else "any size"


def _dim(dim: Dim) -> str:
    return "any size" if dim is None else str(dim)


def _shape(spec: TensorSpec) -> str:
    return (
        "any shape"
        if spec.shape is None
        else f"[{', '.join('?' if dim is None else str(dim) for dim in spec.shape)}]"
    )


def _others(model: Mapping[str, TensorSpec], problem: Mapping[str, TensorSpec]) -> str:
    others = [repr(name) for name in model if name not in problem]
    return f"; it has {', '.join(others)}" if others else ""
