"""Among the environments that have names, a package runs in the first that has a version in its range."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from opexec.environment import Environment
from opexec.environments import store as environment_store
from opexec.errors import FrameworkNotFound
from opexec.package import read
from opexec.packages import loading
from tests import shelves
from tests.shelves import quiet, wheel

from .package_samples import folder_of, sample

own_settings = shelves.own_settings
shelf = shelves.shelf


def saved(name: str, *requirements: str) -> Path:
    environment = Environment(requirements=list(requirements), env_vars={"NAMED": name})
    python = environment.resolve(quiet)
    environment_store.save(name, environment.request(), python)
    return python


def test_the_range_chooses_among_named_environments(shelf: Path, tmp_path: Path) -> None:
    for version in ("0.2.0", "0.3.1"):
        wheel(shelf, "onnxruntime", version)
    old, new = saved("a", "onnxruntime==0.2.0"), saved("b", "onnxruntime==0.3.1")
    saved("c", "tiny")

    def chosen(versions: str) -> loading.Place:
        files = sample(platform="onnx", platform_version_semver=versions)
        files["0/config.json"] = b'{"model": "model.pt"}'
        return loading.choose(read(folder_of(tmp_path / versions, files)), None)

    place = chosen(">=0.3.0 <1.0.0")
    assert place.interpreter == new and dict(place.env_vars) == {"NAMED": "b"}
    assert chosen("0.x").interpreter == old  # the first, by name, of those that fit
    with pytest.raises(
        FrameworkNotFound, match=r"'a' has 0\.2\.0; .*'b' has 0\.3\.1; .*'c' has none; "
    ) as caught:
        chosen("0.4.x")
    assert caught.value.field == "platform_version_semver"


def test_python_code_runs_in_a_named_environment_if_it_asks_for_a_python(shelf: Path, tmp_path: Path) -> None:
    wheel(shelf, "tiny", "1.0")
    named = saved("a", "tiny")
    version = "{}.{}".format(*sys.version_info)

    def chosen(versions: str | None) -> Path:
        files = sample(platform="python", platform_version_semver=versions)
        files["0/config.json"] = b'{"entrypoint_package": "m", "entrypoint": "f"}'
        return loading.choose(read(folder_of(tmp_path / str(versions), files)), None).interpreter

    here = Path(sys.executable)
    assert (
        chosen(None) == chosen("*") == here
    )  # any environment would do, and none is known to have what the code needs
    assert chosen(f"{version}.x") == chosen(">=3.7") == named
