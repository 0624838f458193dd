"""Describing an interpreter: what it says is true, is kept, and is asked for again when it may have changed."""

from __future__ import annotations

import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from opexec.environments import interpreters
from opexec.environments.interpreters import interpreter_of, probe
from opexec.errors import BuildError
from opexec.files import caches


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An empty venv of the interpreter that runs the tests."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def site_packages(venv: Path) -> Path:
    (folder,) = venv.glob("lib/python*/site-packages")
    return folder


def test_it_says_what_it_is() -> None:
    found = probe(sys.executable)
    assert found.path == Path(sys.executable)
    assert found.version == platform.python_version() and found.version_info == sys.version_info[:3]
    assert (found.implementation, found.cache_tag) == (sys.implementation.name, sys.implementation.cache_tag)
    assert (found.soabi, found.platform) == (sysconfig.get_config_var("SOABI"), sysconfig.get_platform())
    assert (found.prefix, found.is_venv) == (Path(sys.prefix), sys.prefix != sys.base_prefix)
    assert found.numpy == __import__("numpy").__version__
    assert str(found) == f"Python {found.version} ({found.path})"


def test_a_venv_keeps_its_own_path_and_names_its_base(venv: Path) -> None:
    assert interpreter_of(venv) == venv / "bin" / "python"
    found = probe(venv)
    assert found.path == venv / "bin" / "python"  # not what the link leads to: that one has other packages
    assert found.is_venv and found.prefix == venv and found.numpy is None
    base = probe(found.base_path)
    assert not base.is_venv and base.prefix == Path(sys.base_prefix) and base.version == found.version
    assert base.base_path == base.path


def test_a_conda_folder_is_an_environment(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert interpreter_of(tmp_path) == tmp_path / "bin" / "python"


def test_it_is_run_once(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe(venv)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert probe(venv) == found


@pytest.mark.parametrize(
    "kept", ["", "{}", "[1]", '{"format": 1}', '{"format": 1, "watched": 7, "stamp": []}']
)
def test_a_record_that_is_not_ours_is_passed_over(venv: Path, kept: str) -> None:
    found = probe(venv)
    (record,) = (caches.root() / "interpreters").iterdir()
    record.write_text(kept)
    assert probe(venv) == found


def test_a_numpy_that_comes_goes_or_changes_is_seen(venv: Path) -> None:
    assert probe(venv).numpy is None
    numpy = site_packages(venv) / "numpy"
    numpy.mkdir()
    (numpy / "__init__.py").write_text("__version__ = '1.5'")
    info = site_packages(venv) / "numpy-1.5.dist-info"
    info.mkdir()
    assert probe(venv).numpy == "1.5"
    info.rename(site_packages(venv) / "numpy-2.5.dist-info")
    assert probe(venv).numpy == "2.5"
    (site_packages(venv) / "numpy-2.5.dist-info").rename(site_packages(venv) / "numpy-1.24.2-py3.11.egg-info")
    assert probe(venv).numpy == "1.24.2"
    numpy.rename(site_packages(venv) / "other")
    assert probe(venv).numpy is None


def test_a_numpy_without_metadata_is_imported(venv: Path) -> None:
    numpy = site_packages(venv) / "numpy.py"
    numpy.write_text("__version__ = 'built here'")
    assert probe(venv).numpy == "built here"
    numpy.write_text("raise ImportError('libblas.so')")
    (site_packages(venv) / "touched").mkdir()
    assert probe(venv).numpy is None


def test_a_venv_that_is_made_again_is_asked_again(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = probe(venv)
    (venv / "pyvenv.cfg").write_text((venv / "pyvenv.cfg").read_text() + "prompt = again\n")
    asked: list[Path] = []
    ask = interpreters._ask
    monkeypatch.setattr(interpreters, "_ask", lambda path: asked.append(path) or ask(path))
    assert probe(venv) == before
    assert asked == [venv / "bin" / "python"]


def test_nothing_is_written_into_the_interpreter(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (site_packages(venv) / "numpy.py").write_text("__version__ = '1'")
    before = sorted(venv.rglob("*"))
    assert probe(venv).numpy == "1"
    assert sorted(venv.rglob("*")) == before


def test_what_else_is_printed_does_not_matter(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site_packages(venv) / "loud.pth").write_text(
        "import sys; sys.stdout.write('hello'); sys.stderr.write('there')\n"
    )
    assert probe(venv).prefix == venv
    # A worker is isolated, so these say nothing about it.
    (site_packages(venv) / "shadow").mkdir()
    (site_packages(venv) / "shadow" / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(site_packages(venv) / "shadow"))
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert probe(venv).prefix == venv


def test_a_python_2_is_run_once_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that a search does not start it every time. A stand-in: a program that is no script and ends as Python 2 does.
    monkeypatch.setattr(
        interpreters, "_QUESTION", "import sys; sys.stderr.write('Unknown option: -I'); sys.exit(2)"
    )
    path = tmp_path / "python"
    path.symlink_to(sys.executable)
    for _ in range(2):
        with pytest.raises(BuildError, match="does not know the option -I"):
            probe(path)
        monkeypatch.setattr(subprocess, "Popen", None)


def test_a_script_is_asked_every_time(tmp_path: Path, venv: Path) -> None:
    target = tmp_path / "target"
    target.write_text(sys.executable)
    wrapper = script(tmp_path / "python", f'exec "$(cat {target})" "$@"')
    assert probe(wrapper).path == wrapper and probe(wrapper).prefix == Path(sys.prefix)
    target.write_text(f"{venv}/bin/python")
    assert probe(wrapper).prefix == venv
    assert interpreters.target_of(wrapper) == venv / "bin" / "python"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing", "does not exist"),
        ("folder", r"is a folder without pyvenv.cfg or conda-meta. Check the path"),
        (
            "installation",
            r"is a folder without pyvenv.cfg or conda-meta. Give the interpreter itself: .*/bin/python",
        ),
        ("empty venv", "the venv .* has no bin/python"),
        (
            "orphaned venv",
            "bin/python is a link to /gone/python, which does not exist: .* Make the environment anew",
        ),
        ("text", "not a file that this user may execute"),
        ("bin/python of a folder", "not a file that this user may execute"),
        ("not a program", "asked what it is, it cannot be executed: Exec format error"),
        ("silent", "asked what it is, it printed something else and no output"),
        ("echo", "asked what it is, it printed something else: -c"),
        ("shim", "it ended with status 127: pyenv: python3.5: command not found"),
        ("crash", "it was ended by SIGSEGV"),
        ("old", "does not know the option -I, as Python before 3.4"),
    ],
)
def test_what_is_no_interpreter_is_said_plainly(tmp_path: Path, what: str, words: str) -> None:
    path = tmp_path / "given"
    scripts = {
        "silent": "exit 0",
        "echo": 'echo "$3"',
        "shim": "echo 'pyenv: python3.5: command not found' >&2; exit 127",
        "crash": "kill -SEGV $$",
        "old": "echo 'Unknown option: -I' >&2; exit 2",
    }
    if what in scripts:
        script(path, scripts[what])
    elif what in ("text", "not a program"):
        path.write_bytes(b"\0\1\2")
        path.chmod(0o755 if what == "not a program" else 0o644)
    elif what != "nothing":
        (path / "bin").mkdir(parents=True)
        if what == "installation":
            (path / "bin" / "python").symlink_to(sys.executable)
        if what.endswith("venv"):
            (path / "pyvenv.cfg").write_text("home = /gone\n")
        if what == "orphaned venv":
            (path / "bin" / "python").symlink_to("/gone/python")
        if what == "bin/python of a folder":
            (path / "pyvenv.cfg").write_text("")
            (path / "bin" / "python").write_text("")
    with pytest.raises(BuildError, match=words) as caught:
        probe(path)
    assert str(path) in str(caught.value)


def test_one_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "_SECONDS", 0.3)
    # Its child holds the output open, so this ends only if the child is ended too.
    path = script(tmp_path / "python", "sleep 1000 & wait")
    with pytest.raises(BuildError, match="did not answer within"):
        probe(path)
