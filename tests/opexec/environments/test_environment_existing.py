"""An interpreter, venv or conda folder of the user's own: taken as it is, and nothing is written into it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import opexec
from opexec import Environment
from opexec.environments import interpreter_search
from tests import shelves
from tests.shelves import home_of, quiet, versions

own_settings = shelves.own_settings
shelf = shelves.shelf

MODEL = """
import mine, numpy

def make():
    return lambda x: {"y": mine.twice(x)}
"""


@pytest.fixture(params=["venv", "conda"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A venv, or an installation of its own as conda makes them, with numpy and a module that nobody has compiled."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    made = tmp_path / "own"
    if request.param == "venv":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    else:
        install(made)
        (made / "conda-meta").mkdir()
    (site,) = made.glob("lib/python*/site-packages")
    # This process's numpy; editable installs add to the path in the same way.
    (site / "numpy.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    (site / "mine.py").write_text("def twice(x):\n    return x * 2\n")
    return made


def install(prefix: Path) -> None:
    """A Python with a prefix of its own: a copy of the executable, and a library folder of links to the original's."""
    ours = interpreter_search.calling()
    library = Path(sysconfig.get_path("stdlib"))
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(ours.path, prefix / "bin" / "python")
    (prefix / "lib" / library.name / "site-packages").mkdir(parents=True)
    for entry in library.iterdir():
        if entry.name != "site-packages":
            (prefix / "lib" / library.name / entry.name).symlink_to(entry)
    for shared in Path(sys.base_prefix, "lib").glob("libpython*"):
        (prefix / "lib" / shared.name).symlink_to(shared)


def fingerprint(folder: Path) -> str:
    """A digest of what is in a folder: names, kinds, sizes, times and content."""
    said = hashlib.sha256()
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        said.update(repr((str(path), status.st_mode, status.st_size, status.st_mtime_ns, content)).encode())
    return said.hexdigest()


def test_loading_into_it_changes_nothing_in_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODEL)
    before = fingerprint(folder)
    for given in (folder, folder / "bin" / "python"):
        with opexec.load(f"{tmp_path / 'models.py'}:make", env=given) as model:
            assert model.infer({"x": np.array([1.0, 2.0])})["y"].tolist() == [2.0, 4.0]
            assert model.workers[0].interpreter == str(folder / "bin" / "python")
    assert fingerprint(folder) == before


def test_building_from_it_changes_nothing_in_it(folder: Path, shelf: Path) -> None:
    before = fingerprint(folder)
    python = Environment(folder, ["tiny"]).resolve(quiet)
    assert versions(python, "tiny") == ["2.0"] and not python.is_relative_to(folder)
    assert not os.path.exists(home_of(python) / "venv" / "mine.py")
    assert fingerprint(folder) == before
