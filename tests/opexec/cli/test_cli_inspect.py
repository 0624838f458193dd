"""`opexec inspect`: the real command, on packages written by hand and on models of this repository."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.command import on_terminal, opexec_here
from tests.loaded import MODELS, source
from tests.opexec.packages.package_samples import MODEL, PUBLISHED, folder_of, manifest_of, sample, zip_of


def told(*arguments: str | Path) -> dict[str, Any]:
    done = opexec_here("inspect", "--json", *arguments)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


def test_a_package_tells_everything_about_itself(tmp_path: Path) -> None:
    files = sample(
        platform_version_semver=">=1.4",
        environment={"python": "3.8", "requirements": ["torch==1.4.0"]},
        input_tensor_device={"x": "CPU"},
    )
    files["test_data.pkl"] = b"never read here"
    path = zip_of(tmp_path / "adder.zip", {**files, "manifest.json": manifest_of(files)})
    found = told(path)
    assert (found["kind"], found["format"], found["name"]) == ("package", "zip", "adder")
    assert (found["platform"], found["platform_version_semver"]) == ("torchscript", ">=1.4")
    assert found["inputs"][0] == {"name": "x", "dtype": "float32", "shape": ["n", None, 3]}
    assert found["environment"] == {"python": "3.8", "requirements": ["torch==1.4.0"]}
    assert found["manifest"] == {"present": True, "matches": True, "problem": None}
    assert found["test_data"] is True and found["files"]["0/data/model.pt"] == len(MODEL)
    assert found["archive_hash"] == hashlib.sha256(path.read_bytes()).hexdigest()
    text = opexec_here("inspect", path).out
    for words in (
        "torchscript >=1.4",
        "x: float32[n, ?, 3] on CPU",
        "python 3.8",
        "every file is as it says",
    ):
        assert words in text


def test_a_folder_and_a_zip_of_it_have_one_hash(tmp_path: Path) -> None:
    zipped = told(zip_of(tmp_path / "a.zip", sample()))
    folder = told(folder_of(tmp_path / "a", sample()))
    assert zipped["hash"] == folder["hash"] and folder["archive_hash"] is None
    assert folder["manifest"]["present"] is False and folder["test_data"] is False


def test_files_that_the_manifest_does_not_have_are_told(tmp_path: Path) -> None:
    files = sample()
    changed = {**files, "manifest.json": manifest_of(files), "0/data/model.pt": b"another"}
    found = told(folder_of(tmp_path / "adder", changed))
    assert (
        found["manifest"]["matches"] is False and "changed: '0/data/model.pt'" in found["manifest"]["problem"]
    )


def test_a_broken_package_is_an_error(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "whole.zip", sample())
    (tmp_path / "half.zip").write_bytes(path.read_bytes()[:-40])
    done = opexec_here("inspect", tmp_path / "half.zip")
    assert done.status == 1 and "half.zip" in done.err and done.out == ""
    folder = folder_of(tmp_path / "bad", {"config.json": b'{"name": 3}'})
    done = opexec_here("inspect", folder)
    assert done.status == 1 and "config.json" in done.err and len(done.err.splitlines()) == 1


def test_a_model_file_is_told_by_its_content() -> None:
    found = told(PUBLISHED / "tf_addition_model" / "0" / "data" / "model.pb")
    assert (found["kind"], found["platform"], found["format"]) == ("model", "tensorflow", "a GraphDef")
    assert found["inputs"] is None and found["files"] == {"model.pb": found["size"]}
    done = opexec_here("inspect", MODELS)
    assert done.status == 1 and "needs the name of its factory" in done.err


def test_load_tells_what_runs_it() -> None:
    found = told(source("double"), "--load")
    assert found["runs_in"]["framework"] == "python" and found["runs_in"]["interpreter"]
    done = opexec_here("inspect", source("raising_factory"), "--load")
    assert done.status == 1 and len(done.err.splitlines()) == 1, done.err
    assert "Traceback" not in done.err and "--traceback shows where" in done.err


@pytest.mark.parametrize("columns", [100, 60])
def test_it_fits_the_terminal(columns: int) -> None:
    lines = on_terminal(columns, "inspect", PUBLISHED / "tf_addition_model")
    assert max(map(len, lines)) <= columns and any("some_namespace/in_x:0" in line for line in lines)
