"""A folder that is all there is to install from: packages made here, of a few hundred bytes, with every version known.

A test module takes the fixtures by name: ``shelf = shelves.shelf``.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest


def wheel(folder: Path, name: str, version: str, *requires: str, tag: str = "py3-none-any") -> None:
    """A package of one module, whose `__version__` is its version."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {item}\n" for item in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


def source_archive(folder: Path, name: str, version: str, program: str = "") -> None:
    """The sources of a package, with a build backend of their own that begins with the program given."""
    built = f"{name}-{version}-py3-none-any.whl"
    backend = f"""
import zipfile

{program}

def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = "{name}-{version}.dist-info"
    with zipfile.ZipFile(folder + "/{built}", "w") as wheel:
        wheel.writestr("{name}/__init__.py", "__version__ = '{version}'\\n")
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return "{built}"
"""
    files = {
        "backend.py": backend,
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    with tarfile.open(folder / f"{name}-{version}.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def index(folder: Path, name: str, version: str) -> str:
    """A package index with one package in it; its URL."""
    wheel(folder / name, name, version)
    (folder / name / "index.html").write_text(
        "".join(f'<a href="{f.name}">{f.name}</a>' for f in (folder / name).glob("*.whl"))
    )
    return folder.as_uri()


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that this machine's users have set for pip or uv."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that everything is installed from, with a numpy and two versions of `tiny`; a cache of its own."""
    folder = tmp_path / "shelf"
    wheel(folder, "numpy", "1.5")
    wheel(folder, "tiny", "1.0")
    wheel(folder, "tiny", "2.0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return folder


def quiet(step: str) -> None:
    """Progress nobody looks at."""


def versions(python: Path, *names: str) -> list[str]:
    program = "import importlib, sys; print(*(importlib.import_module(n).__version__ for n in sys.argv[1:]))"
    return subprocess.check_output([python, "-I", "-c", program, *names], text=True).split()


def home_of(python: Path) -> Path:
    return python.parents[2]
