"""Which interpreter and which versions are chosen: over the interpreters of this machine, with and without a lock or a network."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from opexec.environment import Environment
from opexec.environments import build as environment_build
from opexec.environments import interpreter_search
from opexec.environments.interpreters import Interpreter
from opexec.environments.version_choice import Chosen
from opexec.errors import BuildError
from opexec.files import caches
from tests import absent as machine
from tests import shelves
from tests.shelves import Served, home_of, index, minor, quiet, versions, wheel

old = shelves.old
own_settings = shelves.own_settings
shelf = shelves.shelf


def wheel_for(shelf: Path, name: str, interpreter: Interpreter) -> None:
    """A package of which there are only wheels for one minor version."""
    tag = "cp" + minor(interpreter).replace(".", "")
    wheel(shelf, name, "1.0", tag=f"{tag}-none-any")


# The interpreter


def test_the_callers_is_taken_where_the_requirements_can_be_had(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter_search, "alternatives", None)  # the machine is not searched
    told: list[str] = []
    python = Environment(requirements=["tiny"]).resolve(told.append)
    assert caches.read_json(home_of(python) / "complete.json")["passed_over"] == []
    assert any(f"choosing versions for {interpreter_search.calling()}" in step for step in told)


def test_else_the_newest_for_which_they_can(
    shelf: Path, old: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel_for(shelf, "aged", old)
    told: list[str] = []
    environment = Environment(requirements=["aged"])
    python = environment.resolve(told.append)
    summary = caches.read_json(home_of(python) / "complete.json")
    assert summary["made_with"]["version"] == old.version
    ours = interpreter_search.calling()
    others = [each.version for each in interpreter_search.alternatives(None, ours)]
    assert summary["passed_over"] == [ours.version, *others[: others.index(old.version)]]
    assert any(
        step.startswith(f"taking Python {old.version}: no versions fit Python {ours.version}")
        for step in told
    )
    lock = (home_of(python) / "requirements.lock").read_text()
    assert f"# python: {old.version} (" in lock and f"# no versions fit: Python {ours.version}" in lock

    monkeypatch.setattr(subprocess, "Popen", None)  # the choice is kept
    assert environment.resolve(quiet) == python


def test_in_a_range_the_newest_for_which_they_can(shelf: Path, old: Interpreter) -> None:
    wheel_for(shelf, "aged", old)
    python = Environment(f">={minor(old)}", ["aged"]).resolve(quiet)
    assert caches.read_json(home_of(python) / "complete.json")["made_with"]["version"] == old.version
    with pytest.raises(BuildError, match="aged(.|\n)*Change the requirements, or ask for another Python"):
        Environment(f">{minor(old)},!={minor(old)}.*", ["aged"]).resolve(quiet)


def test_a_named_version_is_not_changed(shelf: Path, old: Interpreter) -> None:
    wheel_for(shelf, "aged", old)
    with pytest.raises(BuildError) as caught:
        Environment(minor(interpreter_search.calling()), ["aged"]).resolve(quiet)
    assert "No versions fit these either" not in str(caught.value)


def test_where_nothing_fits_the_callers_reasons_are_told(shelf: Path, old: Interpreter) -> None:
    with pytest.raises(BuildError) as caught:
        Environment(requirements=["absent"]).resolve(quiet)
    said = str(caught.value)
    ours = interpreter_search.calling()
    assert f"from {ours}. uv says:" in said and "absent was not found" in said
    others = ", ".join(each.version for each in interpreter_search.alternatives(None, ours))
    assert f"No versions fit these either: Python {others}." in said


def test_a_new_interpreter_has_the_choice_made_again(
    shelf: Path, old: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel_for(shelf, "aged", old)
    environment = Environment(requirements=["aged"])
    all_others = interpreter_search.alternatives

    def but_the_last(python: str | None, to: Interpreter) -> list[Interpreter]:
        return all_others(python, to)[:-1]

    monkeypatch.setattr(interpreter_search, "alternatives", but_the_last)
    with pytest.raises(BuildError):
        environment.resolve(quiet)
    monkeypatch.setattr(interpreter_search, "alternatives", all_others)
    python = environment.resolve(quiet)
    monkeypatch.setattr(interpreter_search, "alternatives", but_the_last)
    with pytest.raises(BuildError):  # the interpreter it was made with is gone
        environment.resolve(quiet)
    monkeypatch.setattr(interpreter_search, "alternatives", all_others)
    assert environment.resolve(quiet) == python


def test_a_source_archive_does_for_the_caller_where_there_are_no_wheels(shelf: Path, tmp_path: Path) -> None:
    shelves.source_archive(shelf, "sourced", "1.0")
    python = Environment(requirements=["sourced"]).resolve(quiet)
    assert versions(python, "sourced") == ["1.0"]
    assert caches.read_json(home_of(python) / "complete.json")["passed_over"] == []


def test_wheels_elsewhere_come_before_a_source_archive_here(shelf: Path, old: Interpreter) -> None:
    # Building an old release's sources with a new Python takes long and fails.
    shelves.source_archive(shelf, "aged", "1.0", "raise RuntimeError('not for this Python')")
    wheel_for(shelf, "aged", old)
    python = Environment(requirements=["aged"]).resolve(quiet)
    assert caches.read_json(home_of(python) / "complete.json")["made_with"]["version"] == old.version


def test_a_source_archive_that_fails_ends_the_choice(shelf: Path) -> None:
    shelves.source_archive(shelf, "broken", "1.0", "raise RuntimeError('no compiler here')")
    told: list[str] = []
    with pytest.raises(BuildError, match="no compiler here"):
        Environment(requirements=["broken"]).resolve(told.append)


# An interpreter that is not installed


@pytest.fixture
def absent(old: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    """An interpreter of another minor version, which nothing leads to; uv can download it, and no other."""
    ours = interpreter_search.calling()
    known = interpreter_search.alternatives(None, ours)
    shelves.hide_interpreters(tmp_path, monkeypatch)
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "store"))
    left = {minor(each) for each in interpreter_search.alternatives(None, ours)}
    hidden = [each for each in known if minor(each) not in left]
    if not hidden:
        machine.absent(f"another Python than {ours} outside of the system's folders")
    offer(tmp_path, hidden[-1], monkeypatch)
    return hidden[-1]


def offer(folder: Path, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have uv download no interpreter but this one, from an archive made of it."""
    name = f"python{minor(interpreter)}"
    library = interpreter.prefix / "lib"
    unneeded = {"__pycache__", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter"}

    def needed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = member.name.split("/")
        return None if unneeded & set(parts) or any(part.startswith("config-") for part in parts) else member

    with tarfile.open(folder / "python.tar.gz", "w:gz", compresslevel=0) as archive:
        archive.add(os.path.realpath(interpreter.path), f"python/bin/{name}")
        archive.add(library / name, f"python/lib/{name}", filter=needed)
        for shared in library.glob("libpython*.so*"):
            archive.add(shared, f"python/lib/{shared.name}")
    major, middle, micro = interpreter.version_info
    machine = platform.machine()
    key = f"cpython-{interpreter.version}-linux-{machine}-gnu"
    entry = {
        "name": "cpython",
        "arch": {"family": machine, "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": middle,
        "patch": micro,
        "prerelease": "",
        "url": (folder / "python.tar.gz").as_uri(),
        "sha256": None,
        "variant": None,
        "build": None,
    }
    (folder / "downloads.json").write_text(json.dumps({key: entry}))
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", str(folder / "downloads.json"))


@pytest.mark.parametrize("python", [None, ">=3.7"])
def test_where_none_fits_one_is_downloaded(
    shelf: Path, absent: Interpreter, monkeypatch: pytest.MonkeyPatch, python: str | None
) -> None:
    monkeypatch.delenv("UV_PYTHON_DOWNLOADS")
    wheel_for(shelf, "aged", absent)
    told: list[str] = []
    environment = Environment(python, ["aged"])
    found = environment.resolve(told.append)
    assert versions(found, "aged") == ["1.0"]
    made_with = caches.read_json(home_of(found) / "complete.json")["made_with"]
    assert made_with["version"] == absent.version and "/store/" in made_with["path"]
    assert f"trying Python {absent.version}, which is not installed" in told
    assert any(step.startswith(f"downloading cpython-{absent.version}-linux-") for step in told)
    assert any(step.startswith(f"taking Python {absent.version}: no versions fit Python ") for step in told)

    told.clear()
    assert environment.resolve(told.append) == found and told == []  # the choice is kept


def test_none_is_downloaded_that_does_not_fit(
    shelf: Path, tmp_path: Path, absent: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_PYTHON_DOWNLOADS")
    wheel_for(shelf, "aged", absent)
    with pytest.raises(BuildError, match="aged(.|\n)*Change the requirements, or ask for another Python"):
        Environment(f">=3.7,!={minor(absent)}.*", ["aged"]).resolve(quiet)
    with pytest.raises(BuildError) as caught:
        Environment(requirements=["aged>1"]).resolve(quiet)
    said = str(caught.value)
    assert "Nor do wheels for one that is not installed: Python " in said and absent.version in said
    assert "\nInterpreters were looked for in: this process; PATH; pyenv (" in said
    assert f"uv ({tmp_path / 'store'})" in said
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("refusal", ["not wanted", "not reached"])
def test_one_that_would_do_and_cannot_be_downloaded_is_named(
    shelf: Path, tmp_path: Path, absent: Interpreter, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    wheel_for(shelf, "aged", absent)
    if refusal == "not reached":
        monkeypatch.delenv("UV_PYTHON_DOWNLOADS")
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        nobody = Served(tmp_path)
        nobody.stop()
        listed = tmp_path / "downloads.json"
        listed.write_text(listed.read_text().replace(tmp_path.as_uri() + "/", nobody.url))
    with pytest.raises(BuildError) as caught:
        Environment(requirements=["aged"]).resolve(quiet)
    said = str(caught.value)
    wanted = minor(absent)
    assert f"\nPython {wanted} would do. It is not installed, and uv could not download it:\n  " in said
    assert ("downloads are not allowed" if refusal == "not wanted" else "Connection refused") in said
    assert "\nInterpreters were looked for in: this process; PATH; pyenv (" in said
    assert said.splitlines()[-1] == (
        f"Install Python {wanted} there (with a network, `uv python install {wanted}` or `pyenv install {wanted}` does), "
        "give the path of one, or change the requirements."
    )


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="torch 1.4.0 has wheels for x86-64 alone")
def test_torch_1_4_is_for_the_newest_python_up_to_3_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice alone: nothing is installed."""
    monkeypatch.delenv("PIP_CONFIG_FILE")
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))
    fitting = [each for each in interpreter_search.installed() if each.version_info < (3, 9)]
    if not fitting:
        machine.absent("a Python 3.7 or 3.8")

    class Enough(Exception):
        chosen: Chosen

    def stop(build: environment_build.Build) -> None:
        enough = Enough()
        enough.chosen = build.chosen
        raise enough

    monkeypatch.setattr(environment_build.Build, "run", stop)
    with pytest.raises(Enough) as caught:
        Environment(requirements=["torch==1.4.0"]).resolve(quiet)
    chosen = caught.value.chosen
    assert chosen.base.version_info[:2] == max(each.version_info[:2] for each in fitting)
    assert "torch==1.4.0" in chosen.lock.splitlines()


# Constraints and places


def test_constraints_bound_what_others_ask_for(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(shelf, "top", "1.0", "tiny")
    environment = Environment(requirements=["top"], constraints=["tiny<2", "unheard-of<1"])
    assert versions(environment.resolve(quiet), "top", "tiny") == ["1.0", "1.0"]
    assert versions(Environment(requirements=["top"]).resolve(quiet), "tiny") == ["2.0"]
    # Those that uv's settings name hold as well.
    wheel(shelf, "numpy", "2.5")
    (tmp_path / "constraints.txt").write_text("numpy<2\n")
    monkeypatch.setenv("UV_CONSTRAINT", str(tmp_path / "constraints.txt"))
    assert versions(environment.resolve(quiet), "numpy", "tiny") == ["1.5", "1.0"]


def test_places_given_are_looked_into_beside_those_configured(shelf: Path, tmp_path: Path) -> None:
    wheel(tmp_path / "mine, too", "extra", "1.0")
    environment = Environment(requirements=["extra", "tiny"], find_links=[tmp_path / "mine, too"])
    assert versions(environment.resolve(quiet), "extra", "tiny") == ["1.0", "2.0"]


def test_indexes_given_are_used(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    configured = index(tmp_path / "configured", "tiny", "9.0")
    monkeypatch.setenv("PIP_INDEX_URL", configured)
    main, extra = index(tmp_path / "main", "tiny", "7.0"), index(tmp_path / "extra", "tiny", "6.0")
    assert versions(Environment(requirements=["tiny"]).resolve(quiet), "tiny") == ["9.0"]
    given = Environment(requirements=["tiny"], index_url=main, extra_index_urls=[extra])
    assert versions(given.resolve(quiet), "tiny") == ["7.0"]
    beside = Environment(requirements=["tiny"], extra_index_urls=[extra])
    assert versions(beside.resolve(quiet), "tiny") == ["9.0"]


# The lock


def test_a_lock_is_installed_as_it_stands(shelf: Path, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==1.5  # a comment\ntiny==1.0\n")
    wheel(shelf, "numpy", "2.5")
    assert versions(Environment.from_lock(lock).resolve(quiet), "numpy", "tiny") == ["1.5", "1.0"]


def test_the_lock_of_an_environment_makes_it_again_on_the_same_python(
    shelf: Path, tmp_path: Path, old: Interpreter
) -> None:
    first = Environment(minor(old), ["tiny"]).resolve(quiet)
    kept = tmp_path / "kept.lock"
    shutil.copy(home_of(first) / "requirements.lock", kept)
    wheel(shelf, "tiny", "3.0")
    assert Environment.from_lock(kept).resolve(quiet) == first  # nothing tells the two apart
    shutil.rmtree(home_of(first))
    again = Environment.from_lock(kept).resolve(quiet)
    assert versions(again, "tiny") == ["2.0"]
    assert caches.read_json(home_of(again) / "complete.json")["made_with"]["version"] == old.version


def test_a_lock_that_names_no_python_is_for_the_newest_it_can_be_had_with(
    shelf: Path, tmp_path: Path, old: Interpreter
) -> None:
    wheel_for(shelf, "aged", old)
    lock = tmp_path / "requirements.lock"
    lock.write_text("aged==1.0\nnumpy==1.5\n")
    python = Environment.from_lock(lock).resolve(quiet)
    assert caches.read_json(home_of(python) / "complete.json")["made_with"]["version"] == old.version


@pytest.mark.parametrize("asked", [None, "older", ">=3.7"])
def test_the_python_taken_for_a_lock_is_written_in_its_copy(
    shelf: Path, tmp_path: Path, old: Interpreter, asked: str | None
) -> None:
    """So that elsewhere, where other interpreters are found, it is the same one."""
    ours = interpreter_search.calling()
    wheel_for(shelf, "aged", old)
    lock = tmp_path / "frozen.txt"
    text = "# by another tool\nnumpy==1.5 \\\n"
    text += f"    --hash=sha256:{shelves.sha256(shelf / 'numpy-1.5-py3-none-any.whl')}\n"
    text += f"aged==1.0 --hash=sha256:{shelves.sha256(next(shelf.glob('aged-*')))}\n"
    lock.write_text(text)
    python = Environment(minor(old) if asked == "older" else asked, lock=lock).resolve(quiet)
    written = (home_of(python) / "requirements.lock").read_text()
    assert written.startswith(f"# python: {old.version} (") and written.endswith(lock.read_text())
    assert (f"# no versions fit: Python {ours.version}" in written) == (asked is None)
    again = tmp_path / "again.lock"
    again.write_text(written)
    assert Environment.from_lock(again).resolve(quiet) == python
    assert (home_of(python) / "requirements.lock").read_text() == written


def test_a_lock_installed_for_another_python_than_it_names_names_that_one(
    shelf: Path, tmp_path: Path, old: Interpreter
) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# title\n# python: 3.99.1 (cpython, linux)\n# no versions fit: Python 3.100.1\nnumpy==1.5\n"
    )
    python = Environment(minor(old), lock=lock).resolve(quiet)
    written = (home_of(python) / "requirements.lock").read_text()
    assert written == f"# python: {old.version} ({old.implementation}, {old.platform})\n# title\nnumpy==1.5\n"


def test_hashes_in_a_lock_are_verified(shelf: Path, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    right = shelves.sha256(shelf / "tiny-1.0-py3-none-any.whl")
    numpy = shelves.sha256(shelf / "numpy-1.5-py3-none-any.whl")
    text = f"numpy==1.5 \\\n    --hash=sha256:{numpy}\ntiny==1.0 \\\n    --hash=sha256:{{}}\n"
    lock.write_text(text.format(right))
    assert versions(Environment.from_lock(lock).resolve(quiet), "tiny") == ["1.0"]
    lock.write_text(text.format("0" * 64))
    with pytest.raises(BuildError, match="Hash mismatch"):
        Environment.from_lock(lock).resolve(quiet)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("numpy==1.5\ntiny>=1\n", "exact versions alone .* got 'tiny>=1'"),
        ("numpy==1.5\ntiny==1.*\n", r"got 'tiny==1\.\*'"),
        ("numpy==1.5\n./local\n", "got './local'"),
        ("numpy==1.5\n-r other.txt\n", "got '-r other.txt'"),
        ("numpy==1.5\n-e ./local\n", "got '-e ./local'"),
        ("tiny==1.0\n", r"expected numpy in .*requirements\.lock, because a worker needs it"),
    ],
)
def test_a_file_that_is_no_lock_is_refused(shelf: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "requirements.lock").write_text(text)
    with pytest.raises(BuildError, match=words):
        Environment.from_lock(tmp_path / "requirements.lock").resolve(quiet)


def test_a_lock_is_checked_against_the_requirements(shelf: Path, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==1.5\ntiny==1.0\n")
    fitting = Environment(requirements=["Tiny<2", "x; python_version < '3'"], constraints=["y<1"], lock=lock)
    assert versions(fitting.resolve(quiet), "tiny") == ["1.0"]
    for requirement, words in (("tiny>=2", "it has 'tiny==1.0'"), ("other", "it has no such package")):
        with pytest.raises(BuildError, match=f"to satisfy '{requirement}'; {words}"):
            Environment(requirements=[requirement], lock=lock).resolve(quiet)


# Without the network


@pytest.fixture
def served(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    for name, version in (("tiny", "1.0"), ("numpy", "1.5")):
        index(tmp_path / "index", name, version)
    served = Served(tmp_path / "index")
    yield served
    served.stop()


def test_an_environment_is_built_again_without_the_network(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment(requirements=["tiny"], index_url=served.url)
    python = environment.resolve(quiet)
    served.stop()
    # Whole in opexec's cache:
    assert environment.resolve(quiet) == python
    # Damaged, with the lock kept:
    shutil.rmtree(home_of(python) / "venv")
    told: list[str] = []
    assert environment.resolve(told.append) == python and versions(python, "tiny") == ["1.0"]
    assert any("an index cannot be reached; looking whether uv's cache has all" in step for step in told)
    # Gone, so that the versions have to be chosen again, from what uv's cache knows:
    shutil.rmtree(caches.root())
    assert versions(environment.resolve(quiet), "tiny") == ["1.0"]
    # And a request never made before:
    other = Environment(requirements=["tiny>=1"], index_url=served.url)
    assert versions(other.resolve(quiet), "tiny") == ["1.0"]


def test_an_index_that_cannot_be_reached_is_told_and_says_nothing_about_the_python(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.stop()
    told: list[str] = []
    with pytest.raises(BuildError, match="Connection refused") as caught:
        Environment(requirements=["tiny"], index_url=served.url).resolve(told.append)
    assert served.url in str(caught.value)
    assert not any("trying" in step for step in told)
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(BuildError, match="the network was disabled"):
        Environment(requirements=["tiny"], index_url=served.url).resolve(told.append)
    assert not any("trying" in step for step in told)
