"""What is promised of every package that a packager has written, and of every one that it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import opexec
from opexec.package import Package, read
from opexec.packages.draft import repack
from opexec.packages.test_data import check_answers, read_test_data
from tests.command import opexec as command


def check_round_trip(package: Package, folder: Path, framework: str) -> None:
    """It is described and verified by the commands, loads again as a zip and as a folder, gives what its test data says, and is the same
    bytes when written anew. New files go into `folder`.
    """
    inputs, expected = read_test_data(package)
    assert expected is not None
    told = json.loads(command("inspect", package.path, "--json").out)
    assert (told["name"], told["platform"]) == (package.name, package.platform)
    verified = command("verify", package.path, "--json")
    assert verified.status == 0 and json.loads(verified.out)["test_data"]["wrong"] == [], verified
    copies = [repack(package, folder / "copy.zip"), repack(package, folder / "copy", as_zip=False)]
    again = repack(copies[1], folder / "again.zip")
    assert copies[0].path.read_bytes() == again.path.read_bytes()
    if package.is_zip:
        assert copies[0].path.read_bytes() == package.path.read_bytes()
    for one in [package, *copies]:
        assert one.hash() == package.hash()
    with opexec.load(copies[1].path) as model:
        assert model.workers[0].framework == framework
        assert model.inputs == package.inputs and model.outputs == package.outputs
        assert check_answers(model, inputs, expected) == []


def check_wrong_answer(packager: Callable[..., Package], folder: Path, **given: Any) -> None:
    """A packager that is told to expect something else refuses, naming the output, and leaves nothing."""
    place = folder / "refused"
    place.mkdir()
    expected = {name: array[::-1] + 1 for name, array in given.pop("test_expected_out").items()}
    with pytest.raises(ValueError, match=f"output {next(iter(expected))!r}"):
        packager(package_path=place / "wrong", test_expected_out=expected, **given)
    assert os.listdir(place) == []


def check_packager(packager: Callable[..., Package], folder: Path, framework: str, **given: Any) -> Package:
    """Both, for what a packager makes of these arguments."""
    folder.mkdir(exist_ok=True)
    package = packager(package_path=folder / "package.zip", **given)
    assert sorted(os.listdir(folder)) == ["package.zip"]
    check_round_trip(package, folder, framework)
    check_wrong_answer(packager, folder, **given)
    return read(package.path)
