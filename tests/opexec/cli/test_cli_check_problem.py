"""`opexec check-problem`: the real command, on models of tests/scales.py and packages written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command import on_terminal, opexec, opexec_here
from tests.opexec.packages.package_samples import folder_of, sample
from tests.scales import PROBLEM, affine_onnx, factory, problem_file


def judged(problem: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    done = opexec_here("check-problem", problem, *arguments, "--json")
    assert done.err == ""
    found = json.loads(done.out)["models"]
    assert isinstance(found, list)
    assert done.status == (0 if all(each["implements"] in ("yes", "not certain") for each in found) else 1)
    return found


def test_models_are_judged_by_specs_and_answers(tmp_path: Path) -> None:
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    onnx = affine_onnx(tmp_path / "two.onnx", 2, 1)
    wrong = affine_onnx(tmp_path / "three.onnx", 3, 1)
    found = judged(problem, onnx, factory("plus_one"), wrong, factory("another_name"), factory("failing"))
    assert [each["implements"] for each in found] == ["yes", "not certain", "no", "no", "no"]
    assert [each["cases"] is not None and each["cases"][0] == [] for each in found] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert "2 of 2 elements differ" in found[2]["cases"][0][0]
    assert "output 'y' is missing" in found[3]["cases"][0][0] and "gave 'z'" in found[3]["cases"][0][0]
    assert (
        "ValueError: no such luck" in found[4]["cases"][0][0] and "Traceback" not in found[4]["cases"][0][0]
    )
    assert found[0]["runs_in"]["framework"] == "onnxruntime"


def test_strict_takes_nothing_on_trust(tmp_path: Path) -> None:
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    assert opexec_here("check-problem", problem, factory("plus_one")).status == 0
    assert opexec_here("check-problem", problem, factory("plus_one"), "--strict").status == 1
    assert (
        opexec_here("check-problem", problem, affine_onnx(tmp_path / "a.onnx", 2, 1), "--strict").status == 0
    )


def test_a_model_whose_specs_contradict_it_is_not_run(tmp_path: Path) -> None:
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    (found,) = judged(problem, affine_onnx(tmp_path / "fixed.onnx", 2, 1, shape=[3]))
    assert found["implements"] == "no" and found["cases"] is None
    assert "the model takes 3 alone" in found["differences"][0]


def test_a_package_without_test_data_need_not_run(tmp_path: Path) -> None:
    specs = {"input_spec": PROBLEM["inputs"], "output_spec": PROBLEM["outputs"]}
    package = folder_of(tmp_path / "package", sample(**specs))  # its model is no model
    (found,) = judged(problem_file(tmp_path), package)
    assert found["implements"] == "yes" and found["cases"] is None and found["runs_in"] is None


def test_what_cannot_be_loaded_does_not_stop_the_others(tmp_path: Path) -> None:
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    found = judged(problem, "absent.onnx", factory("raising"), affine_onnx(tmp_path / "two.onnx", 2, 1))
    assert [each["implements"] for each in found] == [None, None, "yes"]
    assert "absent.onnx" in found[0]["error"] and "broken on purpose" in found[1]["error"]


def test_an_option_can_be_for_one_model(tmp_path: Path) -> None:
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    onnx = affine_onnx(tmp_path / "two.onnx", 2, 1)
    found = judged(problem, onnx, factory("plus_one"), "--option", "1:threads=1")
    assert [each["error"] for each in found] == [None, None]
    found = judged(problem, onnx, onnx, "--option", "2:thread=1")
    assert found[0]["error"] is None and "no option 'thread'" in found[1]["error"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "problem.json"),
        ('{"name": "a", "inputs": 3, "outputs": []}', "inputs"),
        (None, "problem.json: cannot be read"),
    ],
)
def test_a_broken_problem_is_an_error(tmp_path: Path, content: str | None, words: str) -> None:
    problem = tmp_path / "problem.json"
    if content is not None:
        problem.write_text(content)
    done = opexec_here("check-problem", problem, factory("plus_one"))
    assert done.status == 1 and words in done.err and done.out == ""


def test_the_table_tells_it_to_people(tmp_path: Path) -> None:
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    arguments = ("check-problem", problem, affine_onnx(tmp_path / "two.onnx", 2, 1), factory("another_name"))
    lines = opexec(*arguments).out.splitlines()
    assert lines[1].split("  ")[0] == "two.onnx" and "1 of 1" in lines[1]
    assert "0 of 1" in lines[2] and any("output 'y' is missing" in line for line in lines[3:])
    for columns in (100, 60):
        table = [line for line in on_terminal(columns, *arguments) if "of 1" in line]
        assert len(table) == 2 and max(map(len, table)) <= columns


def test_a_problem_may_be_declared_in_python(tmp_path: Path) -> None:
    declared = tmp_path / "problems.py"
    declared.write_text(
        "from opexec.problem import Problem\n"
        "from specs import rows\n"
        "doubled = Problem('doubled', [rows('x')], [rows('y')], [({'x': [1, 2]}, {'y': [3, 5]})])\n"
    )
    (tmp_path / "specs.py").write_text(
        "def rows(name):\n    return {'name': name, 'dtype': 'float32', 'shape': ['n']}\n"
    )
    onnx = affine_onnx(tmp_path / "two.onnx", 2, 1)
    wrong = affine_onnx(tmp_path / "three.onnx", 3, 1)
    found = judged(Path(f"{declared}:doubled"), onnx, wrong)
    assert [each["implements"] for each in found] == ["yes", "no"]
    (tmp_path / "broken.py").write_text("1 / 0")
    for given, words in (
        (declared, f"'{declared}:NAME'"),
        (f"{declared}:rows", "problems.py has doubled"),
        (f"{tmp_path}/absent.py:p", "there is no file"),
        (f"{tmp_path}/broken.py:p", "cannot be run: ZeroDivisionError"),
    ):
        done = opexec_here("check-problem", given, onnx)
        assert done.status == 1 and words in done.err and len(done.err.splitlines()) == 1
