"""A model implements a problem if every call of the problem's is one of the model's; what differs is listed, and test data survive files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opexec.errors import PackageError, SpecError
from opexec.package import read
from opexec.problem import Difference, Problem
from opexec.problem_data import compare_outputs
from opexec.spec import TensorSpec, bind_inputs, bind_outputs

from .packages.package_samples import PUBLISHED, specs


@pytest.mark.parametrize(
    "problem, model, verdict",
    [
        # (inputs, outputs) of each; True: proven, None: only a call shows it, text: what differs
        (("x:n", "y:n"), ("x:n", "y:n"), True),
        (("x:n", "y:n"), ("x:batch", "y:batch"), True),  # symbols may have other names
        (("x:n y:m", "z:n,m"), ("x:a y:b", "z:a,b"), True),
        (("x:n y:m", "z:n,m"), ("x:a y:b", "z:b,a"), "output 'z': axis 0 is n in the problem, the model gives the problem's m"),
        (("x:3", ""), ("x:?", ""), True),  # null is more than a number
        (("x:n", ""), ("x:?", ""), True),
        (("x:3", ""), ("x:n", ""), True),
        (("x:3", ""), ("x:*", ""), True),
        (("x:?", ""), ("x:3", ""), "input 'x': axis 0 is any size in the problem, the model takes 3 alone"),
        (("x:n", ""), ("x:3", ""), "input 'x': axis 0 is n in the problem, the model takes 3 alone"),
        (("x:4", ""), ("x:3", ""), "input 'x': axis 0 is 4 in the problem, the model takes 3 alone"),
        (("x:*", ""), ("x:3", ""), r"input 'x': the problem has any shape, the model takes \[3\]"),
        (("x:3", ""), ("x:3,1", ""), "input 'x': the problem has the rank 1, the model takes 2"),
        (("x:", ""), ("x:", ""), True),
        # One symbol of the model's for sizes that the problem does not tie together.
        (("x:n y:n", ""), ("x:a y:b", ""), True),
        (("x:n y:m", ""), ("x:a y:a", ""), r"input 'y': axis 0 is m .* the same as axis 0 of 'x' \(its a\), which is the problem's n"),
        (("x:? y:?", ""), ("x:a y:a", ""), "input 'y': axis 0 is any size .*, that of axis 0 of 'x'"),
        (("x:3 y:3", ""), ("x:a y:a", ""), True),
        (("x:3 y:4", ""), ("x:a y:a", ""), "input 'y': axis 0 is 4 .* which is 3"),
        # Outputs: the other way round.
        (("", "y:?"), ("", "y:3"), True),
        (("", "y:*"), ("", "y:3"), True),
        (("", "y:3"), ("", "y:?"), None),
        (("", "y:3"), ("", "y:*"), None),
        (("", "y:3"), ("", "y:k"), None),
        (("", "y:3"), ("", "y:4"), "output 'y': axis 0 is 3 in the problem, the model gives 4"),
        (("", "y:3"), ("", "y:3,3"), "the problem has the rank 1, the model gives 2"),
        (("x:3", "y:3"), ("x:n", "y:n"), True),  # known through the input
        (("x:4", "y:3"), ("x:n", "y:n"), "output 'y': axis 0 is 3 in the problem, the model gives 4"),
        (("x:n", "y:n"), ("x:n", "y:?"), None),
        (("x:n", "y:n"), ("x:n", "y:3"), "output 'y': axis 0 is n in the problem, the model gives 3"),
        (("x:?", "y:3"), ("x:n", "y:n"), "the model gives any size, that of axis 0 of 'x'"),
        (("", "y:k z:k"), ("", "y:5 z:5"), True),  # a symbol that outputs alone have
        (("", "y:k z:k"), ("", "y:j z:j"), True),
        (("", "y:k z:k"), ("", "y:i z:j"), None),
        (("", "y:k z:k"), ("", "y:? z:?"), None),
        (("", "y:k"), ("", "y:?"), True),
        (("", "y:k z:k"), ("", "y:5 z:6"), "output 'z': axis 0 is 6; the problem has k for it and for axis 0 of 'y', which is 5"),
        # Names.
        (("x:3", "y:3"), ("x:3", "y:3 more:1"), True),  # nobody has to ask for an output
        (("x:3", ""), ("x:3 more:1", ""), "input 'more': the model needs it, and the problem does not give it"),
        (("x:3 y:3", ""), ("x:3", ""), "input 'y': the model takes no such input"),
        (("x:3", ""), ("X:3", ""), "input 'x': the model takes no such input; it has 'X'"),
        (("", "y:3"), ("", "z:3"), "output 'y': the model gives no such output; it has 'z'"),
    ],
)  # fmt: skip
def test_whether_specs_implement_a_problem(
    problem: tuple[str, str], model: tuple[str, str], verdict: bool | str | None
) -> None:
    fit = Problem("p", *map(specs, problem)).check(*map(specs, model))
    if verdict is True:
        assert fit.proven and fit.ok and str(fit) == "implements the problem"
    elif verdict is None:
        assert fit.ok and not fit.proven and len(fit.unproven) == 1 and "(not certain)" in str(fit)
    else:
        assert not fit.ok and not fit.proven
        assert re.search(verdict, str(fit.differences[0])), str(fit)


def test_every_difference_is_listed() -> None:
    problem = Problem("p", specs("a:3 b:n c:2"), specs("d:3 e:n"))
    model = (TensorSpec("a", "float64", (4,)), *specs("b:5 f:1")), specs("d:4")
    fit = problem.check(*model)
    assert [(one.kind, one.tensor) for one in fit.differences] == [
        ("input", "a"),
        ("input", "a"),
        ("input", "b"),
        ("input", "c"),
        ("input", "f"),
        ("output", "d"),
        ("output", "e"),
    ]
    assert str(fit).startswith("input 'a': the problem has float32, the model takes float64\n")
    assert len(str(fit).splitlines()) == 7


def test_a_model_that_tells_nothing_is_not_certain() -> None:
    fit = Problem("p", specs("x:3"), specs("y:3")).check(None, None)
    assert fit.ok and not fit.proven
    assert fit.unproven[0] == Difference(None, "input", "the model does not tell what it takes")


dims = st.sampled_from([None, 1, 2, "n", "m"])
sides = st.lists(st.lists(dims, max_size=2), min_size=1, max_size=2).map(
    lambda shapes: tuple(TensorSpec(f"t{index}", "float32", shape) for index, shape in enumerate(shapes))
)


def _sizes(draw: Any, found: tuple[TensorSpec, ...], values: dict[str, int]) -> dict[str, Any]:
    """Tensors that fit specs, where `values` has what symbols are."""
    tensors = {}
    for spec in found:
        sizes = [draw(st.integers(0, 3)) if dim is None else values.get(dim, dim) for dim in spec.shape]
        tensors[spec.name] = (np.dtype("float32"), tuple(sizes))
    return tensors


@given(st.data(), sides, sides, sides, sides)
def test_a_call_of_the_problem_is_a_call_of_a_model_that_implements_it(
    data: st.DataObject,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    takes: tuple[TensorSpec, ...],
    gives: tuple[TensorSpec, ...],
) -> None:
    fit = Problem("p", inputs, outputs).check(takes, gives)
    if not fit.ok:
        return
    values = {symbol: data.draw(st.integers(0, 3)) for symbol in ("n", "m")}
    given_tensors = _sizes(data.draw, inputs, values)
    in_problem = bind_inputs(inputs, given_tensors)
    in_model = bind_inputs(takes, given_tensors)  # no SpecError: the model takes it
    if fit.proven:
        free = {symbol: data.draw(st.integers(0, 3)) for symbol in ("n", "m")}
        given_back = _sizes(data.draw, gives, {**free, **in_model})
        wanted = {name: given_back[name] for name in given_back if name in {spec.name for spec in outputs}}
        bind_outputs(outputs, wanted, in_problem)  # no SpecError: the problem allows it


def test_the_published_packages_implement_problems(tmp_path: Path) -> None:
    graph = read(PUBLISHED / "tf_addition_model")
    single = read(PUBLISHED / "torchscript_addition_model_single_output")
    addition = Problem("addition", specs("x:n,? y:n,?"), specs("out:n,?"))
    fit = addition.check(graph.inputs, graph.outputs)
    assert fit.ok and [one.tensor for one in fit.unproven] == ["out"]  # its sizes are all null
    assert [one.tensor for one in addition.check(single.inputs, single.outputs).differences] == ["optional"]


# ---- test data

EVERYTHING = Problem(
    "everything",
    [
        TensorSpec("x", "float32", ("n",)),
        TensorSpec("half", "bfloat16", (None,)),
        TensorSpec("words", "string", ("n", 2)),
        TensorSpec("raw", "bytes", ()),
        TensorSpec("when", "datetime64[s]", ()),
    ],
    [TensorSpec("y", "int64", ("n",)), TensorSpec("label", "string", ())],
    [
        (
            {
                "x": [1.5, -2],
                "half": np.array([1, 2.5], ml_dtypes.bfloat16),
                "words": [["ä", ""], ["b", "long text"]],
                "raw": b"\x00\xff",
                "when": np.datetime64("2020-01-02", "s"),
            },
            {"y": [1, 2**62], "label": "yes"},
        ),
        (
            {
                "x": np.ones(1, np.float32),
                "half": np.zeros(0, ml_dtypes.bfloat16),
                "words": np.array([["a", "b"]]),
                "raw": b"",
                "when": np.datetime64(0, "s"),
            },
            None,
        ),
    ],
)


def same(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return list(first) == list(second) and all(
        np.array_equal(first[name], second[name])
        and (first[name].dtype == second[name].dtype or first[name].dtype.kind in "UO")
        for name in first
    )


def test_a_problem_survives_its_file(tmp_path: Path) -> None:
    EVERYTHING.write(tmp_path / "p.json")
    again = Problem.read(tmp_path / "p.json")
    assert (again.name, again.inputs, again.outputs) == ("everything", EVERYTHING.inputs, EVERYTHING.outputs)
    assert len(again.cases) == 2
    for one, other in zip(EVERYTHING.cases, again.cases):
        assert same(one.inputs, other.inputs) and same(one.outputs, other.outputs)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(written) == {"p.json", "p.npz"} and b"pickle" not in written["p.npz"]
    again.write(tmp_path / "p.json")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written


def test_a_problem_without_numbers_is_one_file(tmp_path: Path) -> None:
    Problem("p", specs("x:n"), specs("y:n")).write(tmp_path / "p.json")
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]
    assert Problem.read(tmp_path / "p.json").cases == ()


def test_a_problem_may_be_written_by_hand(tmp_path: Path) -> None:
    content = {
        "name": "addition",
        "inputs": [spec.to_dict() for spec in specs("x:n y:n")],
        "outputs": [spec.to_dict() for spec in specs("sum:n")],
        "test_data": [
            {"inputs": {"x": [1, 2], "y": [3, 4]}, "outputs": {"sum": [4, 6]}},
            {"inputs": {"x": [], "y": []}},
        ],
    }
    (tmp_path / "p.json").write_text(json.dumps(content))
    first, second = Problem.read(tmp_path / "p.json").cases
    assert first.inputs["x"].dtype == np.float32 and first.outputs is not None and second.outputs is None
    assert first.outputs["sum"].tolist() == [4, 6]


@pytest.mark.parametrize(
    "changes, field, message",
    [
        ({"inputs": None}, "inputs", "is missing"),
        ({"inputs": [{"name": "x", "dtype": "float33", "shape": []}]}, "inputs[0].dtype", "did you mean"),
        ({"name": 3}, "name", "expected a text"),
        ({"tests": []}, "tests", "one of the keys"),
        ({"test_data": {}}, "test_data", "expected a list"),
        ({"test_data": [{"input": {}}]}, "test_data[0]", 'with "inputs" and "outputs"'),
        ({"test_data": [{"inputs": {"x": [1, 2], "y": [1]}}]}, "test_data[0]", "axis 0 is 1, but n is 2"),
        ({"test_data": [{"inputs": {"x": [1]}}]}, "test_data[0]", "input 'y' is missing"),
        (
            {"test_data": [{"inputs": {"x": ["a"], "y": [1]}}]},
            "test_data[0].inputs",
            "no value for the dtype float32",
        ),
        (
            {"test_data": [{"inputs": {"x": [1], "y": [1]}, "outputs": {"sum": [1, 2]}}]},
            "test_data[0]",
            "output 'sum'",
        ),
        ({"test_data": [{"inputs": [1]}]}, "test_data[0].inputs", "names and values"),
        ({"arrays": "../p.npz"}, "arrays", "relative to this file"),
    ],
)
def test_a_bad_problem_says_where(tmp_path: Path, changes: dict[str, Any], field: str, message: str) -> None:
    content: dict[str, Any] = {
        "name": "p",
        "inputs": [spec.to_dict() for spec in specs("x:n y:n")],
        "outputs": [spec.to_dict() for spec in specs("sum:n")],
    }
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(PackageError, match=message) as caught:
        Problem.read(tmp_path / "p.json")
    assert (caught.value.file, caught.value.field) == ("p.json", field)


@pytest.mark.filterwarnings("ignore")
def test_arrays_with_objects_are_refused(tmp_path: Path) -> None:
    EVERYTHING.write(tmp_path / "p.json")
    for content in ({"0/inputs/x": np.array([{}], object)}, None):
        if content is None:
            (tmp_path / "p.npz").write_bytes(b"PK\3\4 no zip")
        else:
            np.savez(tmp_path / "p.npz", **content)
        with pytest.raises(PackageError, match="without objects") as caught:
            Problem.read(tmp_path / "p.json")
        assert caught.value.file == "p.npz"
    with pytest.raises(PackageError, match="No such file"):
        Problem.read(tmp_path / "none.json")


def test_what_python_declares_is_checked() -> None:
    with pytest.raises(SpecError, match="two input specs are named 'x'"):
        Problem("p", specs("x:1 x:2"), ())
    with pytest.raises(SpecError, match="axis 0 is 1, but n is 2"):
        Problem("p", specs("x:n y:n"), (), [({"x": [1, 2], "y": [1]}, None)])
    with pytest.raises(SpecError, match="output 'sum'"):
        Problem("p", specs("x:n"), specs("sum:n"), [({"x": [1, 2]}, {"sum": [1]})])


@pytest.mark.parametrize(
    "right, got, line",
    [
        (np.float32([1, 2]), np.float32([1, 2.000001]), None),
        (
            np.float32([1, 2]),
            np.float32([1, 2.1]),
            r"1 of 2 elements differ: expected 2\.0 at \[1\], got 2\.1",
        ),
        (np.float32([np.nan]), np.float32([np.nan]), None),
        (np.float32([1]), np.float64([1]), None),
        (np.float32([1]), np.float32([[1]]), r"expected the shape \[1\], got \[1, 1\]"),
        (np.int64([2**62]), np.int64([2**62 + 1]), "1 of 1 elements differ"),
        (np.array(["a", "b"]), np.array(["a", "b"], object), None),
        (
            np.array(["a", "b"]),
            np.array(["a", "bc"]),
            r"1 of 2 elements differ: expected 'b' at \[1\], got 'bc'",
        ),
        (np.array(["1"]), np.array([1]), "expected <U1, got int64"),
        (np.array([1], ml_dtypes.bfloat16), np.float32([1.5]), "1 of 1 elements differ"),
        (np.float32(1), np.float32(2), "expected .* got"),
        (np.zeros(0), np.zeros(0), None),
        (np.complex64([1j]), np.complex64([1]), "1 of 1 elements differ"),
    ],
)
def test_answers_are_compared(right: Any, got: Any, line: str | None) -> None:
    found = compare_outputs({"y": right}, {"y": got, "more": 1})
    assert found == [] if line is None else len(found) == 1 and re.search(line, found[0]), found
    assert compare_outputs({"y": right}, {}) == ["output 'y' is missing"]
