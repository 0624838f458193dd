"""`opexec compare`: answers, metrics, turns, what failed; and the arithmetic of differences."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from opexec import OpexecError
from opexec.cli.models import labels
from opexec.comparison import answers, samples
from opexec.comparison.answers import OutputDifference, differences
from opexec.problem import Problem
from tests.command import Done, on_terminal, opexec, opexec_here
from tests.scales import PROBLEM, affine_onnx, factory, problem_file

FAILED = 1


def data(folder: Path, *expected: list[float] | None) -> Path:
    """A folder with a sample for each: x = [0, 1, 2], and y where it is known."""
    folder.mkdir()
    for number, y in enumerate(expected):
        known = {} if y is None else {"y": np.array(y, np.float32)}
        np.savez(folder / f"{number}.npz", x=np.arange(3, dtype=np.float32), **known)
    return folder


def compared(
    problem: Path, *arguments: str | Path, status: int = 0, run: Callable[..., Done] = opexec_here
) -> dict[str, Any]:
    done = run("compare", problem, *arguments, "--json", "--rounds", "2")
    assert done.status == status, done.err
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


# ---- the command


def test_models_of_two_platforms_are_held_against_the_first(tmp_path: Path) -> None:
    onnx = affine_onnx(tmp_path / "two.onnx", 2, 1)
    found = compared(
        *(problem_file(tmp_path), onnx, factory("plus_one"), factory("a_little_more")),
        *("--data", data(tmp_path / "data", None, None)),
        run=opexec,
    )
    first, equal, more = found["models"]
    assert found["reference"] == "first model" and found["samples"] == 2 and first["answers"] == {}
    assert equal["answers"]["y"] == {
        "elements": 6,
        "differing": 0,
        "samples_of_another_shape": 0,
        "max_difference": 0.0,
        "mean_difference": 0.0,
    }
    assert more["answers"]["y"]["differing"] == 6 and more["answers"]["y"]["max_difference"] == 0.25
    for each in found["models"]:
        latency, memory = each["latency"], each["memory"]
        assert latency["calls"] == 4  # two rounds of two samples
        assert 0 < latency["least"] <= latency["p50"] <= latency["p90"] <= latency["p99"]
        assert 1 << 20 < memory["own"] <= memory["resident"]
    assert first["runs_in"]["framework"] == "onnxruntime" and first["proven_by_specs"]


def test_known_outputs_are_what_all_are_held_against(tmp_path: Path) -> None:
    places = data(tmp_path / "data", [1, 3, 5], [1, 3, 6])
    found = compared(
        problem_file(tmp_path), factory("plus_one"), factory("failing"), "--data", places, status=1
    )
    assert found["reference"] == "expected"
    difference = found["models"][0]["answers"]["y"]
    assert (difference["differing"], difference["max_difference"]) == (1, 1.0)
    assert difference["mean_difference"] == pytest.approx(1 / 6)


def test_without_data_the_problem_has_it(tmp_path: Path) -> None:
    found = compared(problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]}), factory("plus_one"))
    assert found["samples"] == 1 and found["models"][0]["answers"]["y"]["differing"] == 0
    done = opexec_here("compare", problem_file(tmp_path), factory("plus_one"))
    assert done.status == 1 and "has no test data; give a folder" in done.err
    done = opexec_here("compare", problem_file(tmp_path), factory("plus_one"), "--data", tmp_path / "absent")
    assert done.status == 1 and "there is no file or folder" in done.err


def test_a_metric_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(
        "def worst(outputs, right):\n    return abs(outputs['y'] - right['y']).max()\n"
    )
    found = compared(
        *(problem_file(tmp_path), factory("plus_one"), factory("a_little_more")),
        *("--data", data(tmp_path / "data", None, [1, 3, 7]), "--metric", f"{tmp_path}/score.py:worst"),
    )
    assert found["reference"] == "both"
    assert [each["metrics"]["worst"]["values"] for each in found["models"]] == [[0.0, 2.0], [0.25, 1.75]]
    assert found["models"][1]["metrics"]["worst"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def m(outputs, right):\n    return outputs['q']", "failed on .*0.npz: KeyError"),
        ("def m(outputs, right):\n    return 'good'", "failed on .*0.npz: ValueError"),
        ("def other(): pass", "has no function 'm'"),
        ("1 / 0", "cannot be run: ZeroDivisionError"),
    ],
)
def test_a_metric_that_fails_stops_it(tmp_path: Path, body: str, words: str) -> None:
    (tmp_path / "score.py").write_text(body)
    places = data(tmp_path / "data", None)
    done = opexec_here(
        *("compare", problem_file(tmp_path), factory("plus_one"), "--data", places),
        *("--metric", f"{tmp_path}/score.py:m"),
    )
    assert done.status == 1 and done.out == "" and len(done.err.splitlines()) == 1
    assert re.search(words, done.err), done.err


def test_what_fails_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    names = ("plus_one", "raising", "failing", "longer", "another_name", "dying_in_the_second_call")
    places = data(tmp_path / "data", None)
    found = compared(problem_file(tmp_path), *map(factory, names), "--data", places, status=FAILED)
    errors = [each["error"] for each in found["models"]]
    assert errors[0] is None and found["models"][0]["latency"]["calls"] == 2
    for error, words in zip(
        errors[1:], ("broken on purpose", "no such luck", "n is 3", "'y' is missing", "exit"), strict=True
    ):
        assert words in error and "Traceback" not in error
    assert found["models"][5]["latency"] is None


def test_the_first_must_not_fail_where_the_others_are_held_against_it(tmp_path: Path) -> None:
    places = data(tmp_path / "data", None)
    done = opexec_here(
        "compare", problem_file(tmp_path), factory("failing"), factory("plus_one"), "--data", places
    )
    assert done.status == 1 and "held against those of the first one, scales.py:failing" in done.err
    assert done.out == "" and len(done.err.splitlines()) == 1


def test_a_model_that_is_not_of_the_problem_is_left_out(tmp_path: Path) -> None:
    fixed = affine_onnx(tmp_path / "fixed.onnx", 2, 1, shape=[7])
    places = data(tmp_path / "data", None)
    found = compared(problem_file(tmp_path), factory("plus_one"), fixed, "--data", places, status=FAILED)
    assert "does not implement the problem: input 'x'" in found["models"][1]["error"]


def test_models_take_turns_and_each_round_begins_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = tmp_path / "order"
    monkeypatch.setenv("OPEXEC_TEST_ORDER", str(order))
    compared(problem_file(tmp_path), *[factory("count")] * 3, "--data", data(tmp_path / "data", None))
    called = order.read_text().split()
    a, b, c = called[:3]
    assert len({a, b, c}) == 3 and called == [a, b, c, a, b, c, b, c, a]


def test_texts_are_equal_or_not(tmp_path: Path) -> None:
    problem = problem_file(tmp_path, outputs=None)
    problem.write_text(json.dumps({**PROBLEM, "outputs": [{"name": "y", "dtype": "string", "shape": ["n"]}]}))
    places = data(tmp_path / "data", None)
    found = compared(problem, factory("words"), factory("other_words"), "--data", places)
    difference = found["models"][1]["answers"]["y"]
    assert (difference["differing"], difference["elements"], difference["max_difference"]) == (2, 3, None)


def test_json_and_picture_are_written(tmp_path: Path) -> None:
    from PIL import Image

    out = tmp_path / "deep" / "report"
    arguments = (problem_file(tmp_path), factory("plus_one"), factory("failing"), "--output", out)
    found = compared(*arguments, "--data", data(tmp_path / "data", None), status=FAILED)
    assert json.loads((out / "comparison.json").read_text()) == found
    with Image.open(out / "comparison.png") as picture:
        picture.load()
        assert picture.format == "PNG" and min(picture.size) > 200
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "comparison.png"]


def test_without_matplotlib_it_says_so_before_it_measures(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "matplotlib.py").write_text(
        "raise ModuleNotFoundError('No module named matplotlib')\n"
    )
    arguments = (problem_file(tmp_path), factory("plus_one"), "--data", data(tmp_path / "data", None))
    path = str(tmp_path / "hidden")
    done = opexec("compare", *arguments, "--output", tmp_path / "out", PYTHONPATH=path)
    assert done.status == 1 and "pip install 'opexec[bench]'" in done.err and not (tmp_path / "out").exists()
    done = opexec("compare", *arguments, "--output", tmp_path / "out", "--no-plot", PYTHONPATH=path)
    assert done.status == 0 and [file.name for file in (tmp_path / "out").iterdir()] == ["comparison.json"]


def test_the_table_fits(tmp_path: Path) -> None:
    arguments = ("compare", problem_file(tmp_path), factory("plus_one"), factory("a_little_more"))
    places = data(tmp_path / "data", None)
    for columns in (100, 60):
        lines = on_terminal(columns, *arguments, "--data", places, "--rounds", "1")
        table = lines[next(place for place, line in enumerate(lines) if line.startswith("model ")) :][:3]
        assert max(map(len, table)) <= columns
        assert "reference" in table[1] and "0.25" in table[2] and "p50" in table[0]


# ---- samples


def test_arrays_are_told_apart_by_the_problem(tmp_path: Path) -> None:
    same = Problem(
        "same", [{"name": "x", "dtype": "int8", "shape": [1]}], [{"name": "x", "dtype": "int8", "shape": [1]}]
    )
    one = np.ones(1, np.int8)
    np.savez(tmp_path / "a.npz", **{"inputs/x": one, "outputs/x": one * 2})
    (source,) = samples.find(same, [tmp_path])
    sample = source.read()
    assert sample.inputs["x"].tolist() == [1] and sample.expected["x"].tolist() == [2]
    for bad, words in (
        ({"x": one}, "may be the input or the output"),
        ({"z": one}, "neither an input nor an output"),
        ({"outputs/x": one}, "input 'x' is missing"),
        ({"inputs/x": one.astype("f4")}, "dtype must be int8"),
    ):
        np.savez(tmp_path / "a.npz", **bad)
        with pytest.raises(OpexecError, match=words) as raised:
            source.read()
        assert "a.npz" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"no archive"])
def test_broken_samples_are_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    (source,) = samples.find(Problem("p", PROBLEM["inputs"], PROBLEM["outputs"]), [tmp_path])
    with pytest.raises(OpexecError, match="a.npz cannot be read"):
        source.read()


# ---- differences


@given(
    st.sampled_from(["i1", "i8", "u8", "f4", "f8"]).flatmap(
        lambda kind: arrays.arrays(np.dtype(kind), (2, 4))
    )
)
def test_differences_are_those_of_exact_numbers(pair: np.ndarray[Any, Any]) -> None:
    right, got = pair
    for a, b, found in zip(right.tolist(), got.tolist(), differences(right, got).tolist(), strict=True):
        if a == b or (a != a and b != b):
            assert found == 0
        elif not (np.isfinite(a) and np.isfinite(b)):
            assert found == np.inf
        else:
            assert found == pytest.approx(abs(a - b))
            assert found > 0


def test_an_output_adds_up_over_samples() -> None:
    found = OutputDifference()
    found.add(np.array([1.0, np.nan]), np.array([1.5, np.nan]))
    found.add(np.array([[1.0]]), np.array([1.0]))
    assert (found.elements, found.differing, found.largest, found.mean, found.misshapen) == (
        2,
        1,
        0.5,
        0.25,
        1,
    )


def test_a_metric_has_to_be_named(tmp_path: Path) -> None:
    for text in ("score", "absent.py:m", f"{tmp_path}:m"):
        with pytest.raises(OpexecError, match=r"'file\.py:function'"):
            answers.load_metric(text)


def test_models_are_called_by_what_tells_them_apart() -> None:
    assert labels(["a/net.pb", "b/net.pb", "c.onnx"]) == ["a/net.pb", "b/net.pb", "c.onnx"]
    assert labels(["a/net.pb", "a/net.pb"]) == ["net.pb (1)", "net.pb (2)"]
    assert labels(["./net.pb", "a/net.pb", "f.py:make"]) == ["net.pb", "a/net.pb", "f.py:make"]


def test_what_is_not_finite_is_equal_or_infinitely_far() -> None:
    nan, inf = np.nan, np.inf
    right, got = np.array([nan, inf, -inf, nan, 1, inf, 1]), np.array([nan, inf, -inf, 1, inf, -inf, 1])
    assert differences(right, got).tolist() == [0, 0, 0, inf, inf, inf, 0]
    largest = np.array([2**63 - 1, 2**63 - 1])
    assert differences(largest, np.array([2**63 - 2, -(2**63)])).tolist() == [1, float(2**64 - 1)]
