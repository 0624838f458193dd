"""What is promised of every package that a packager has written, and of every one that it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import opexec
from opexec.cli.root import command
from opexec.package import DATA, Package
from opexec.packages.draft import repack
from opexec.problem_data import compare_outputs


def told(*arguments: str | Path) -> dict[str, Any]:
    """What the command tells as JSON; it runs in this process, but the models that it loads do not."""
    done = CliRunner().invoke(command, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert isinstance(content, dict)
    return content


def check_written_anew(package: Package, folder: Path) -> Package:
    """It is described by the command, and a copy, which it returns, is the same package: a folder, of which a zip has the same bytes again.
    New files go into `folder`.
    """
    described = told("inspect", package.path)
    assert (described["name"], described["platform"]) == (package.name, package.platform)
    copy = repack(package, folder / "copy", as_zip=False)
    assert (copy.inputs, copy.outputs) == (package.inputs, package.outputs)
    assert copy.hash() == package.hash()
    again = repack(copy, folder / "again.zip")
    if package.is_zip:
        assert again.path.read_bytes() == package.path.read_bytes()
    return copy


def check_round_trip(package: Package, folder: Path, framework: str) -> None:
    """Written anew, its files are as its manifest says, and its model gives what its test data says, in a worker with that framework."""
    verified = told("verify", check_written_anew(package, folder).path)
    assert verified["manifest"]["matches"] is True
    assert verified["test_data"]["right"] is True, verified
    assert verified["test_data"]["misfits"] == []
    assert verified["test_data"]["runs_in"]["framework"] == framework


def check_here(package: Package, given: dict[str, Any]) -> None:
    """It gives in this process, which has the framework, what it was packed to give."""
    with opexec.load(package.path, isolation="none") as model:
        assert (model.inputs, model.outputs) == (package.inputs, package.outputs)
        answer = model.infer(given["test_input_data"])
    assert compare_outputs(given["test_expected_out"], answer) == []


def check_wrong_answer(packager: Callable[..., Package], folder: Path, **given: Any) -> None:
    """A packager that is told to expect something else refuses, naming the output, and leaves nothing."""
    place = folder / "refused"
    place.mkdir()
    expected = {name: array[::-1] + 1 for name, array in given.pop("test_expected_out").items()}
    with pytest.raises(ValueError, match=f"output {next(iter(expected))!r}"):
        packager(package_path=place / "wrong", test_expected_out=expected, **given)
    assert os.listdir(place) == []


def check_packager(packager: Callable[..., Package], folder: Path, **given: Any) -> Package:
    """What a packager makes of these arguments, tried in a worker as it packs; its copy loads and is right in this process."""
    folder.mkdir(exist_ok=True)
    package = packager(package_path=folder / "package.zip", **given)
    assert os.listdir(folder) == ["package.zip"]
    check_here(check_written_anew(package, folder), given)
    return package


def check_same_model(packager: Callable[..., Package], package: Package, file: str, **given: Any) -> None:
    """From the model file of a package, by its path, the packager makes the same files."""
    path = package.path.with_name("from_file")
    written = {name: value for name, value in given.items() if not name.startswith("test_")}
    again = packager(
        package_path=path, package_as_zip=False, model_path=package.folder() / DATA / file, **written
    )
    theirs = package.folder()
    for name in again.files:
        if name != "manifest.json":
            assert (path / name).read_bytes() == (theirs / name).read_bytes(), name
    assert set(package.files) - set(again.files) == {"test_data.pkl"}
