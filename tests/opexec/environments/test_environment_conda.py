"""Environments from a conda environment.yml.

No conda can be had from PyPI, so a stand-in on PATH plays the tool: it keeps a record of how it was called and makes a folder as
conda does. That what opexec calls is what micromamba and conda take is known from their documentation alone.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from opexec.environment import Environment
from opexec.errors import BuildError
from opexec.files import caches
from tests.shelves import home_of, quiet

FILE = """
name: old
channels: [conda-forge]
dependencies:
  - python=3.8
  - numpy
"""

# Makes a conda folder out of a venv of the interpreter that runs the tests. A file with "numpy" in it has one.
TOOL = """#!{python}
import glob, json, os, subprocess, sys
with open({record!r}, "a") as record:
    record.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
prefix = sys.argv[sys.argv.index("--prefix") + 1]
if "--explicit" in sys.argv:
    print("@EXPLICIT\\nfile:///numpy-1.5.conda")
    raise SystemExit
text = open(sys.argv[sys.argv.index("--file") + 1]).read()
if "impossible" in text:
    os.makedirs(prefix)
    sys.exit("nothing provides impossible")
if "python" in text or "@EXPLICIT" in text:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    os.makedirs(os.path.join(prefix, "conda-meta"))
    if "numpy" in text:
        (site,) = glob.glob(os.path.join(prefix, "lib", "python*", "site-packages"))
        for folder in ("numpy", "numpy-1.5.dist-info"):
            os.mkdir(os.path.join(site, folder))
        open(os.path.join(site, "numpy", "__init__.py"), "w").close()
        with open(os.path.join(site, "numpy-1.5.dist-info", "METADATA"), "w") as metadata:
            metadata.write("Metadata-Version: 2.1\\nName: numpy\\nVersion: 1.5\\n")
else:
    os.makedirs(prefix)
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    for name in ("MAMBA_EXE", "CONDA_EXE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path / "record"


def install(tmp_path: Path, name: str, record: Path) -> Path:
    tool = tmp_path / "bin" / name
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(TOOL.format(python=sys.executable, record=str(record)))
    tool.chmod(0o755)
    return tool


def calls(record: Path) -> list[list[str]]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def test_without_a_tool_the_error_says_what_to_install(tmp_path: Path, record: Path) -> None:
    (tmp_path / "environment.yml").write_text(FILE)
    environment = Environment.from_conda(tmp_path / "environment.yml")
    with pytest.raises(
        BuildError, match="expected micromamba, mamba or conda on PATH .* there is none. Install one"
    ):
        environment.resolve(quiet)
    assert list(caches.folder("environments").glob("*/venv")) == []


@pytest.mark.parametrize("name", ["micromamba", "mamba", "conda"])
def test_the_users_tool_makes_it_once(
    tmp_path: Path, record: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "environment.yml"
    file.write_text(FILE)
    tool = install(tmp_path, name, record)
    environment = Environment.from_conda(file, env_vars={"A": "1"})
    python = environment.resolve(quiet)
    home = home_of(python)
    prefix = str(home / "venv")
    create, export = {
        "micromamba": (["create", "--yes"], ["env", "export", "--explicit"]),
        "mamba": (["env", "create"], ["list", "--explicit"]),
        "conda": (["env", "create"], ["list", "--explicit"]),
    }[name]
    made = [name, *create, "--prefix", prefix, "--file", str(file)]
    assert calls(record) == [made, [name, *export, "--prefix", prefix]]
    summary = caches.read_json(home / "complete.json")
    assert summary["requested"] == {"conda": str(file)} and summary["made_with"]["path"] == str(tool)

    tool.unlink()
    assert environment.resolve(quiet) == python  # from the cache
    shutil.rmtree(home / "venv")
    install(tmp_path, name, record)
    assert environment.resolve(quiet) == python
    exact = [name, "create", "--yes", "--prefix", prefix, "--file", str(home / "conda.lock")]
    assert calls(record)[2] == exact
    file.write_text(FILE.replace("3.8", "3.9"))
    assert environment.resolve(quiet) != python


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dependencies: [python, impossible]", "micromamba says:\n  nothing provides impossible"),
        ("dependencies: [numpy]", "to ask for python, because a worker runs in it"),
        ("dependencies: [python, nothing-else]", "expected numpy in the environment of .*environment.yml"),
    ],
)
def test_what_the_tool_cannot_do_is_told_and_leaves_nothing(
    tmp_path: Path, record: Path, text: str, words: str
) -> None:
    (tmp_path / "environment.yml").write_text(text)
    install(tmp_path, "micromamba", record)
    with pytest.raises(BuildError, match=words):
        Environment.from_conda(tmp_path / "environment.yml").resolve(quiet)
    assert list(caches.folder("environments").glob("*/venv")) == []
