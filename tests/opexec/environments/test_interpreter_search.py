"""Finding an interpreter: which one fits, in what order the places are searched, and what is said if there is none."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opexec.environments import installer, interpreter_search
from opexec.environments.interpreter_search import (
    absent,
    alternatives,
    base_of,
    calling,
    check_request,
    find,
    installed,
)
from opexec.environments.interpreters import Interpreter, probe
from opexec.errors import BuildError
from tests.shelves import hide_interpreters


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without interpreters, an empty PATH, no downloads; the system's own folders remain."""
    hide_interpreters(tmp_path, monkeypatch)
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


Pretend = Callable[..., Path]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretend]:
    """Puts files in places that then pass for interpreters of the given versions; all others pass for none."""
    made: dict[Path, Interpreter] = {}
    pattern = calling()

    def put(path: Path, version: str, **fields: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x7fELF" + bytes(str(path), "utf-8"))
        path.chmod(0o755)
        described = {"path": path, "base_path": path, "version": version, "is_venv": False, **fields}
        made[path] = dataclasses.replace(pattern, **described)
        return path

    def pretended(given: str | Path) -> Interpreter:
        path = Path(given)
        if path not in made:
            raise BuildError(
                f"expected {path} to be a Python interpreter; asked what it is, it is not of this test. Give the path"
            )
        return made[path]

    monkeypatch.setattr(interpreter_search, "probe", pretended)
    yield put


@pytest.mark.parametrize(
    ("python", "version"),
    [
        ("3.7", "3.7.16"),
        ("3.7.9", "3.7.9"),
        ("3", "3.13.2"),
        (">=3.8,<3.12", "3.11.5"),
        ("!=3.13.*", "3.11.5"),
        ("~=3.7.1", "3.7.16"),
        ("3.14.0rc1", "3.14.0rc1"),
        ("==3.14.0rc1", "3.14.0rc1"),
        (">=3.14.0a1", "3.14.0rc1"),
        ("3.1", None),  # not 3.11 or 3.13
        ("3.14", None),  # a pre-release fits where it is asked for
        ("3.7.1", None),
        ("<3.7", None),
    ],
)
def test_the_newest_that_fits_is_taken(
    tmp_path: Path, pretend: Pretend, python: str, version: str | None
) -> None:
    for there in ("3.6.15", "3.7.9", "3.7.16", "3.11.5", "3.13.2", "3.14.0rc1"):
        pretend(tmp_path / "home" / ".pyenv" / "versions" / there / "bin" / "python", there)
    if version is None:
        with pytest.raises(BuildError, match=r"expected (an interpreter that fits|a Python >= 3\.7)"):
            find(python)
    else:
        assert find(python).version == version


def test_of_equal_versions_the_places_decide(
    tmp_path: Path, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [
        tmp_path / "path" / "python3.9",
        tmp_path / "home" / ".pyenv" / "versions" / "3.9.1" / "bin" / "python",
        tmp_path / "home" / ".local" / "share" / "uv" / "python" / "cpython-3.9" / "bin" / "python3.9",
        tmp_path / "home" / ".asdf" / "installs" / "python" / "3.9.1" / "bin" / "python3.9",
        tmp_path / "home" / ".local" / "share" / "mise" / "installs" / "python" / "3.9" / "bin" / "python3",
        tmp_path / "home" / "miniconda3" / "bin" / "python",
        tmp_path / "home" / "miniconda3" / "envs" / "mine" / "bin" / "python",
        tmp_path / "elsewhere" / "bin" / "python",
    ]
    (tmp_path / "home" / ".conda").mkdir(parents=True)
    (tmp_path / "home" / ".conda" / "environments.txt").write_text(f"{places[-1].parent.parent}\n")
    for place in places:
        pretend(place, "3.9.1")
    assert [found.path for found in installed()] == places
    for place in places:
        assert find("3.9").path == place
        place.unlink()


def test_a_newer_one_of_conda_does_not_win(tmp_path: Path, pretend: Pretend) -> None:
    ours = pretend(tmp_path / "path" / "python3.9", "3.9.1")
    pretend(tmp_path / "home" / "miniforge3" / "envs" / "project" / "bin" / "python", "3.9.8")
    assert find("3.9").path == ours


def test_the_places_are_those_that_the_variables_name(
    tmp_path: Path, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyenv = pretend(tmp_path / "p" / "versions" / "x" / "bin" / "python3.8", "3.8.1")
    uv = pretend(tmp_path / "u" / "x" / "bin" / "python3.9", "3.9.1")
    conda = pretend(tmp_path / "c" / "envs" / "x" / "bin" / "python", "3.10.1")
    asdf = pretend(tmp_path / "a" / "installs" / "python" / "x" / "bin" / "python", "3.7.1")
    mise = pretend(tmp_path / "m" / "installs" / "python" / "x" / "bin" / "python", "3.7.2")
    with pytest.raises(BuildError):
        find(">=3.7,<3.11,!=3.10.13")
    monkeypatch.setenv("ASDF_DATA_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("MISE_DATA_DIR", str(tmp_path / "m"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "p"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "u"))
    monkeypatch.setenv("CONDA_EXE", str(tmp_path / "c" / "bin" / "conda"))
    wanted = {"3.8": pyenv, "3.9": uv, "3.10.1": conda, "3.7.1": asdf, "3.7.2": mise}
    assert {version: find(version).path for version in wanted} == wanted


def test_alternatives_are_one_of_each_other_minor_version_the_newest_first(
    tmp_path: Path, pretend: Pretend
) -> None:
    pyenv = tmp_path / "home" / ".pyenv" / "versions"
    for there in ("3.6.15", "3.7.9", "3.7.16", "3.9.1", "3.12.1", "3.14.0rc1"):
        pretend(pyenv / there / "bin" / "python", there)
    pretend(pyenv / "pypy" / "bin" / "python", "3.10.1", implementation="pypy")
    conda = tmp_path / "home" / "miniforge3" / "envs"
    pretend(conda / "newer" / "bin" / "python", "3.9.8")  # not better than what is no project's own
    pretend(conda / "other" / "bin" / "python", "3.8.1")
    first = interpreter_search.probe(pyenv / "3.12.1" / "bin" / "python")
    assert [each.version for each in alternatives(None, first)] == ["3.9.1", "3.8.1", "3.7.16"]
    assert [each.version for each in alternatives(">=3.8", first)] == ["3.9.1", "3.8.1"]
    assert [each.version for each in alternatives("3", first)] == ["3.9.1", "3.8.1", "3.7.16"]
    for exact in ("3.12", "3.12.1", str(first.path)):
        assert alternatives(exact, first) == []


def test_absent_are_the_last_of_each_minor_version_that_is_not_installed(
    tmp_path: Path, pretend: Pretend
) -> None:
    present = [
        interpreter_search.probe(pretend(tmp_path / there, there)) for there in ("3.12.1", "3.9.1", "3.6.15")
    ]
    offered = ["3.16.0a2", "3.15.2", "3.15.1", "3.12.16", "3.11.9", "3.11.18", "3.8.20", "3.6.9"]
    assert absent(None, present, offered) == ["3.15.2", "3.11.18", "3.8.20", "3.7.17"]
    assert absent("3", present, offered) == absent(None, present, offered)
    assert absent(">=3.8,<3.11.18", present, offered) == ["3.11.9", "3.8.20"]
    assert absent(">=3.16.0a1", present, offered) == ["3.16.0a2"]
    assert absent("<3.8", present, [*offered, "3.7.9"]) == ["3.7.9"]


def test_uv_keeps_its_interpreters_where_we_look() -> None:
    said = subprocess.check_output([installer._binary(), "python", "dir"], text=True).strip()
    with pytest.raises(BuildError) as caught:
        find("3.99")
    assert f"uv ({said})" in str(caught.value)


def test_others_than_cpython_with_a_lock_are_passed_over(tmp_path: Path, pretend: Pretend) -> None:
    pretend(tmp_path / "path" / "python3.9", "3.9.8", implementation="pypy")
    pretend(tmp_path / "path" / "python3.13", "3.13.1", free_threaded=True)
    for python in ("3.9", "3.13"):
        with pytest.raises(BuildError, match=r"PyPy 3\.9\.8 .*\n.*Python 3\.13\.1 free-threaded"):
            find(python)
    assert find(str(tmp_path / "path" / "python3.9")).implementation == "pypy"


def test_the_name_that_says_most_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "path"
    folder.mkdir()
    for name in ("python", "python3", "python3.99"):
        (folder / name).symlink_to(calling().path)
    assert interpreter_search._pythons_in([folder]) == [
        folder / n for n in ("python3.99", "python3", "python")
    ]


# With real interpreters


def test_the_calling_interpreter_is_found_first() -> None:
    ours = calling()
    assert not ours.is_venv and ours.version_info == sys.version_info[:3]
    assert ours.prefix == Path(sys.base_prefix)
    assert installed()[0] == ours
    assert find(ours.version) == ours


def test_a_venv_on_path_stands_for_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    monkeypatch.setenv("PATH", str(venv / "bin"))
    assert all(not found.is_venv for found in installed())
    assert find(str(venv)).path == venv / "bin" / "python"
    assert os.path.realpath(base_of(probe(venv)).path) == os.path.realpath(calling().path)


def test_a_conda_environment_of_the_cache_is_not_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretend: Pretend
) -> None:
    """conda writes every environment it makes into its list; one that opexec has it make may be pruned."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))
    prefix = tmp_path / "cache" / "environments" / "key" / "venv"
    theirs = tmp_path / "theirs"
    for each in (prefix, theirs):
        pretend(each / "bin" / "python3.9", "3.9.7", prefix=each)
    known = tmp_path / "home" / ".conda" / "environments.txt"
    known.parent.mkdir(parents=True)
    known.write_bytes(f"{prefix}\n{theirs}\n".encode() + b"/\xff\nrelative\n")
    found = [each.path for each in installed()]
    assert theirs / "bin" / "python3.9" in found and prefix / "bin" / "python3.9" not in found


def test_a_broken_shim_is_passed_over_and_named(tmp_path: Path) -> None:
    shim = script(
        tmp_path / "path" / "python3.99",
        "echo 'pyenv: python3.99: command not found' >&2",
        "echo more",
        "exit 127",
    )
    assert find(calling().version) == calling()
    with pytest.raises(BuildError) as caught:
        find("3.99")
    said = str(caught.value)
    assert f"\n  {shim}: it ended with status 127: pyenv: python3.99: command not found\n" in said
    assert str(calling()) in said
    assert "looked in: this process; PATH; pyenv (" in said
    assert "uv could not download one:\n  error: No download found" in said


def test_a_shim_that_works_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = calling()
    script(tmp_path / "path" / "python3", f'exec "{ours.path}" "$@"')
    monkeypatch.setattr(sys, "_base_executable", str(tmp_path / "gone"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    assert os.path.realpath(find(ours.version).path) == os.path.realpath(ours.path)
    with pytest.raises(BuildError, match="gone does not exist"):
        calling()


def test_a_program_that_embeds_python_is_told_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "")
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(BuildError, match=r"Name one: python='3\.11'"):
        calling()


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("3.6", "expected a Python >= 3.7"),
        ("3.6.15", "expected a Python >= 3.7"),
        ("2", "expected a Python >= 3.7"),
        ("python3", "expected python to be a version"),
        ("3.x", "expected python to be a version"),
        ("3.7 or 3.8", "expected python to be a version"),
        ("/no/such/python", "/no/such/python does not exist"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(python: str, words: str) -> None:
    with pytest.raises(BuildError, match=re.escape(words)):
        find(python)


def test_an_interpreter_that_is_too_old_is_refused_by_path(tmp_path: Path, pretend: Pretend) -> None:
    path = pretend(tmp_path / "python", "3.6.15")
    with pytest.raises(BuildError, match=rf"expected a Python >= 3\.7.*; got Python 3\.6\.15 \({path}\)"):
        find(str(path))


def test_requests_have_one_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_request(" 3.7 ") == "3.7"
    assert check_request("< 3.12, >=3.8") == check_request(">=3.8,<3.12")
    assert check_request("./venv") == str(tmp_path / "venv")
    assert check_request("~/venv") == str(tmp_path / "home" / "venv")
