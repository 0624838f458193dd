"""A folder that is all there is to install from: packages made here, of a few hundred bytes, with every version known; and an
interpreter that is not the caller's.

A test module takes the fixtures by name: ``shelf = shelves.shelf``.
"""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import subprocess
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest

from opexec.environments import interpreter_search
from opexec.environments.interpreters import Interpreter
from tests.absent import absent


def wheel(
    folder: Path, name: str, version: str, *requires: str, tag: str = "py3-none-any", filler: int = 0
) -> None:
    """A package of one module, whose `__version__` is its version, with so many bytes of data."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {item}\n" for item in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        **({f"{name}/filler": "0" * filler} if filler else {}),
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


class Served:
    """A folder over HTTP on this machine, until it is stopped; then its port refuses connections."""

    def __init__(self, folder: Path) -> None:
        handler = partial(_Quiet, directory=str(folder))
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # uv hangs up once it has read what a package needs


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=0")  # so that uv would have to ask again
        super().end_headers()


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that this machine's users have set for pip or uv."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that everything is installed from, with a numpy and two versions of `tiny`; a cache of its own. No interpreter is
    downloaded.
    """
    folder = tmp_path / "shelf"
    wheel(folder, "numpy", "1.5")
    wheel(folder, "tiny", "1.0")
    wheel(folder, "tiny", "2.0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return folder


@pytest.fixture
def old() -> Interpreter:
    """An interpreter of another minor version than the caller's."""
    ours = interpreter_search.calling()
    others = interpreter_search.alternatives(None, ours)
    if not others:
        absent(f"another Python than {ours}")
    return others[-1]


def hide_interpreters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without interpreters and an empty PATH, both in `folder`, and no variable that leads to some; the system's own folders remain."""
    for name in (
        "ASDF_DATA_DIR",
        "CONDA_EXE",
        "CONDA_PREFIX",
        "MAMBA_ROOT_PREFIX",
        "MISE_DATA_DIR",
        "PYENV_ROOT",
        "UV_PYTHON_INSTALL_DIR",
        "XDG_DATA_HOME",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("PATH", str(folder / "path"))


def minor(interpreter: Interpreter) -> str:
    return f"{interpreter.version_info[0]}.{interpreter.version_info[1]}"


def quiet(step: str) -> None:
    """Progress nobody looks at."""


def versions(python: Path, *names: str) -> list[str]:
    program = "import importlib, sys; print(*(importlib.import_module(n).__version__ for n in sys.argv[1:]))"
    return subprocess.check_output([python, "-I", "-c", program, *names], text=True).split()


def home_of(python: Path) -> Path:
    return python.parents[2]
