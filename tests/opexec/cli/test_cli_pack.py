"""`opexec pack`: the real command; what it makes is verified by `opexec verify`."""

from __future__ import annotations

import json
from pathlib import Path

from opexec.package import read
from tests.command import opexec
from tests.opexec.packages.package_samples import PUBLISHED
from tests.scales import affine_onnx, factory, problem_file


def test_a_model_file_becomes_a_package_that_runs(tmp_path: Path) -> None:
    model = affine_onnx(tmp_path / "two.onnx", 2, 1)
    done = opexec("pack", model, tmp_path / "scale.zip", "--versions", ">=1.4")
    assert done.status == 0 and done.out.strip() == str(tmp_path / "scale.zip"), done.err
    made = read(tmp_path / "scale.zip")
    assert (made.name, made.platform, made.platform_version_semver) == ("scale", "onnx", ">=1.4")
    assert [spec.shape for spec in made.inputs] == [("n",)] and not made.has_test_data
    ran = opexec("run", tmp_path / "scale.zip", "-i", "x=[1, 2]", "--json")
    assert json.loads(ran.out)["outputs"]["y"]["data"] == [3.0, 5.0], ran.err


def test_the_problems_case_is_the_test_data(tmp_path: Path) -> None:
    model = affine_onnx(tmp_path / "two.onnx", 2, 1)
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    done = opexec("pack", model, tmp_path / "scale", "--problem", problem, "--folder", "--name", "scaling")
    assert done.status == 0, done.err
    assert read(tmp_path / "scale").name == "scaling"
    told = json.loads(opexec("verify", tmp_path / "scale", "--json").out)
    assert told["manifest"]["matches"] is True and told["test_data"]["right"] is True


def test_a_wrong_answer_leaves_nothing(tmp_path: Path) -> None:
    model = affine_onnx(tmp_path / "three.onnx", 3, 1)
    problem = problem_file(tmp_path, {"x": [1, 2]}, {"y": [3, 5]})
    before = sorted(tmp_path.iterdir())
    done = opexec("pack", model, tmp_path / "scale.zip", "--problem", problem)
    assert done.status == 1 and "not what was expected" in done.err and done.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_package_is_written_anew(tmp_path: Path) -> None:
    folder = PUBLISHED / "tf_addition_model"
    for target in ("first.zip", "second.zip"):
        assert opexec("pack", folder, tmp_path / target).status == 0
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    assert opexec("pack", tmp_path / "first.zip", tmp_path / "again", "--folder").status == 0
    assert (tmp_path / "again" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    done = opexec("pack", folder, tmp_path / "third.zip", "--name", "other")
    assert done.status == 2 and "only --folder goes with it" in done.err


def test_what_cannot_be_packaged_is_told(tmp_path: Path) -> None:
    model = affine_onnx(tmp_path / "two.onnx", 2, 1)
    (tmp_path / "there.zip").write_text("mine")
    done = opexec("pack", model, tmp_path / "there.zip")
    assert (
        done.status == 1 and "exists already" in done.err and (tmp_path / "there.zip").read_text() == "mine"
    )
    done = opexec("pack", factory("plus_one"), tmp_path / "a.zip")
    assert done.status == 1 and "packaged by a program" in done.err
    done = opexec("pack", model, tmp_path / "a.zip", "--node", "x=y")
    assert done.status == 2 and "has no nodes" in done.err
    done = opexec(
        "pack", PUBLISHED / "tf_addition_model/0/data/model.pb", tmp_path / "a.zip", "--problem", "none"
    )
    assert done.status == 1 and "none" in done.err
