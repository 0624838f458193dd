"""However opexec is installed, it arrives whole, under its own name, and brings no other name along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import opexec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLONE = Path(__file__).parents[2]
NOT_IN_GIT = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", ".*_cache", "__pycache__")
DIST_INFO = f"opexec-{opexec.__version__}.dist-info"
FOREIGN_NAMES = ["ipc", "workers", "tests", "benchmarks", "tools"]

# Run by the interpreter that opexec was installed for.
PROBE = f"""
import importlib.util, json, opexec, opexec.ipc, opexec.workers
print(json.dumps({{
    "files": [opexec.__file__, opexec.ipc.__file__, opexec.workers.__file__],
    "others": [name for name in {FOREIGN_NAMES} if importlib.util.find_spec(name)],
}}))
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finished.returncode == 0, f"{command} exited with {finished.returncode}:\n{finished.stdout}"
    return finished.stdout


def modules_in_clone() -> dict[str, bytes]:
    """Contents of every module of opexec, by its path in a wheel."""
    found = {}
    for folder, folders, files in os.walk(CLONE / "opexec", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for file in map(Path(folder).joinpath, files):
            if file.suffix == ".py":
                found[file.relative_to(CLONE).as_posix()] = file.read_bytes()
    return found


@dataclass(frozen=True)
class Built:
    """Paths of what can be installed."""

    clone: Path
    wheel: Path
    sdist: Path
    wheel_of_sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    clone = folder / "clone"
    shutil.copytree(CLONE, clone, symlinks=True, ignore=NOT_IN_GIT)
    uv = [sys.executable, "-m", "uv", "build", "--python", sys.executable, "--out-dir"]
    run(*uv, folder / "from-clone", "--wheel", clone)
    run(*uv, folder / "from-sdist", clone)  # an sdist, and a wheel from it
    (wheel,) = (folder / "from-clone").glob("*.whl")
    (sdist,) = (folder / "from-sdist").glob("*.tar.gz")
    (wheel_of_sdist,) = (folder / "from-sdist").glob("*.whl")
    return Built(clone, wheel, sdist, wheel_of_sdist)


@pytest.mark.parametrize("which", ["wheel", "wheel_of_sdist"])
def test_a_wheel_holds_every_module_as_a_real_file_and_nothing_else(built: Built, which: str) -> None:
    with zipfile.ZipFile(getattr(built, which)) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist()}
        linked = [info.filename for info in wheel.infolist() if info.external_attr >> 28 == 0o12]
    assert linked == []
    assert {name: data for name, data in held.items() if name.endswith(".py")} == modules_in_clone()
    assert "opexec/py.typed" in held
    assert {name.split("/")[0] for name in held} == {"opexec", DIST_INFO}
    assert held[f"{DIST_INFO}/licenses/LICENSE"] == (CLONE / "LICENSE").read_bytes()


def test_an_sdist_holds_real_files_under_the_packages_name(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        members = {member.name.split("/", 1)[-1]: member for member in sdist}
    assert all(member.isfile() or member.isdir() for member in members.values())
    assert modules_in_clone().keys() <= members.keys()
    assert {"CHANGELOG.md", "LICENSE", "README.md", "opexec/py.typed", "pyproject.toml"} <= members.keys()
    assert not {"ipc", "workers"} & members.keys()


@pytest.mark.parametrize("which", ["wheel", "wheel_of_sdist", "sdist", "clone", "editable clone"])
def test_an_installation_brings_opexec_and_no_other_name(built: Built, which: str, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    python = venv / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    run(*uv, "venv", "--seed", "--python", sys.executable, venv)
    run(*uv, "pip", "install", "--python", python, "-r", CLONE / "pyproject.toml")
    (site_packages,) = venv.glob("lib/python3.*/site-packages")
    before = set(os.listdir(site_packages))

    how = ["--editable"] if which.startswith("editable ") else []
    run(python, "-m", "pip", "install", "--no-deps", *how, getattr(built, which.split()[-1]))
    new = set(os.listdir(site_packages)) - before - {"__pycache__"}
    home = built.clone if how else site_packages
    assert {name for name in new if not name.startswith("__editable__")} == {DIST_INFO} | (
        set() if how else {"opexec"}
    )

    probed = json.loads(run(python, "-I", "-c", PROBE, cwd=tmp_path))
    assert probed["others"] == []
    assert all(Path(file).is_relative_to(home / "opexec") for file in probed["files"]), probed["files"]
