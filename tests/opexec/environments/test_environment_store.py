"""Names of environments: what they keep, and that they go on meaning the same environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from opexec.environment import Environment
from opexec.environments import cleanup as environment_cleanup
from opexec.environments import store as environment_store
from opexec.errors import BuildError
from opexec.files import caches
from tests import shelves
from tests.shelves import home_of, quiet, versions, wheel

own_settings = shelves.own_settings
shelf = shelves.shelf


def create(name: str, environment: Environment) -> Path:
    python = environment.resolve(quiet)
    environment_store.save(name, environment.request(), python)
    return python


def test_a_name_gives_what_was_built_for_it(shelf: Path) -> None:
    python = create("small", Environment(requirements=["tiny<2"], env_vars={"COLOUR": "blue"}))
    found = environment_store.named("small")
    assert isinstance(found, Environment)
    assert found.resolve(quiet) == python
    assert dict(found.env_vars) == {"COLOUR": "blue"}
    assert versions(python, "tiny") == ["1.0"]


def test_it_is_found_whatever_the_settings_are_by_now(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = create("small", Environment(requirements=["tiny"]))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path / "no-uv"))

    def never(step: str) -> None:
        raise AssertionError(step)

    assert environment_store.named("small").resolve(never) == python


def test_it_keeps_the_python_that_was_chosen(shelf: Path) -> None:
    create("small", Environment())
    assert environment_store.named("small").python == os.fspath(
        Path(getattr(sys, "_base_executable", sys.executable))
    )


def test_built_again_it_has_the_same_versions(shelf: Path) -> None:
    python = create("small", Environment(requirements=["tiny"]))
    wheel(shelf, "tiny", "3.0")
    environment_cleanup.remove(environment_store.find("small"), to_be_rebuilt=True)
    assert not python.exists()
    assert [each.called for each in environment_store.stored()] == []
    again = environment_store.named("small").resolve(quiet)
    assert again == python
    assert versions(again, "tiny") == ["2.0"]
    assert environment_store.find("small").names == ("small",)


def made_from(kind: str, folder: Path) -> tuple[Path, Environment]:
    """A file of that kind, which asks for the first of `tiny`, and what it asks for."""
    folder.mkdir()
    if kind == "requirements":
        file = folder / "requirements.txt"
        file.write_text("tiny<2\n")
        return file, Environment.from_requirements(file)
    if kind == "project":
        file = folder / "pyproject.toml"
        file.write_text('[project]\nname = "p"\nversion = "1"\ndependencies = ["tiny<2"]\n')
        return file, Environment.from_pyproject(file)
    if kind == "script":
        file = folder / "script.py"
        file.write_text('# /// script\n# dependencies = ["tiny<2"]\n# ///\n')
        return file, Environment.from_script(file)
    file = folder / "frozen.txt"
    file.write_text("tiny==1.0\nnumpy==1.5\n")
    return file, Environment.from_lock(file)


@pytest.mark.parametrize("kind", ["requirements", "project", "script", "lock"])
def test_the_file_that_it_was_made_from_is_not_needed_any_more(
    shelf: Path, tmp_path: Path, kind: str
) -> None:
    file, environment = made_from(kind, tmp_path / "project")
    python = create("small", environment)
    shutil.rmtree(file.parent)
    assert environment_store.named("small").resolve(quiet) == python
    assert environment_store.resolve("small") == python
    shutil.rmtree(home_of(python) / "venv")
    assert environment_store.named("small").resolve(quiet) == python  # from its own lock
    shutil.rmtree(home_of(python))
    if kind != "lock":
        assert versions(environment_store.named("small").resolve(quiet), "tiny") == ["1.0"]
        return
    with pytest.raises(
        BuildError, match=r"expected lock to be a file of exact versions, but .*frozen.txt cannot be read"
    ):
        environment_store.named("small").resolve(quiet)


def test_a_folder_that_it_was_made_from_is_not_needed_any_more(shelf: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(shelf, moved)
    place = (moved / "tiny-1.0-py3-none-any.whl").as_uri()
    python = create("small", Environment(requirements=[f"tiny @ {place}"], find_links=[moved]))
    shutil.rmtree(moved)
    assert environment_store.named("small").resolve(quiet) == python


def test_looking_it_up_is_a_use(shelf: Path) -> None:
    python = create("small", Environment())
    used = home_of(python) / "used"
    os.utime(used, (1e9, 1e9))
    environment_store.named("small").resolve(quiet)
    assert used.stat().st_mtime > 1e9


def test_an_unknown_name_lists_those_there_are_and_the_nearest(shelf: Path) -> None:
    with pytest.raises(
        BuildError, match="no environment named 'tf115'.*None has a name yet: opexec env create tf115"
    ):
        environment_store.named("tf115")
    for name in ("tf115", "torch-1.4"):
        create(name, Environment())
    with pytest.raises(BuildError, match=r"'tf15'. Did you mean tf115\? There are: tf115, torch-1.4.$"):
        environment_store.named("tf15")
    with pytest.raises(BuildError, match="'keras'. There are: tf115, torch-1.4.$"):
        environment_store.named("keras")


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "é", "x" * 101, "a\n"])
def test_what_cannot_be_a_name_is_refused(shelf: Path, name: str) -> None:
    with pytest.raises(BuildError, match="^expected a name of letters, digits"):
        environment_store.named(name)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 99, "key": "x"}', "\udcff"])
def test_a_damaged_file_of_a_name_is_none(shelf: Path, text: str) -> None:
    caches.folder("names").joinpath("bad.json").write_bytes(text.encode(errors="surrogateescape"))
    assert environment_store.names() == []
    with pytest.raises(BuildError, match="no environment named 'bad'"):
        environment_store.named("bad")


def test_passwords_of_indexes_are_for_the_user_alone(shelf: Path) -> None:
    python = Environment(requirements=["tiny"]).resolve(quiet)
    request = {"requirements": ["tiny"], "index_url": "https://me:secret@example.org/simple"}
    saved = environment_store.save("private", request, python)
    environment_store.save("public", {"requirements": ["tiny"]}, python)
    folder = caches.root() / "names"
    assert (folder / "private.json").stat().st_mode & 0o777 == 0o600
    assert (folder / "public.json").stat().st_mode & 0o077 != 0
    assert environment_store.named("private").index_url == request["index_url"]
    assert "secret" not in str(saved.public_request)
    assert "secret" not in str(environment_store.find("private").request)


def test_a_key_or_its_beginning_finds_an_environment(shelf: Path) -> None:
    home = home_of(Environment(requirements=["tiny"]).resolve(quiet))
    found = environment_store.find(home.name[:6])
    assert found.home == home and found.names == () and found.called == home.name
    assert found.packages == {"numpy": "1.5", "tiny": "2.0"}
    assert found.complete and found.request == {"requirements": ["tiny"]}
    assert environment_store.resolve(home.name) == found.interpreter
    with pytest.raises(BuildError, match="no environment named"):
        environment_store.find("0" * 20)


def test_a_name_comes_before_a_key(shelf: Path) -> None:
    one, other = (home_of(Environment(requirements=[item]).resolve(quiet)) for item in ("tiny<2", "tiny>=2"))
    environment_store.save(one.name, {}, other / "venv" / "bin" / "python")
    assert environment_store.find(one.name).home == other


def test_environments_with_names_are_listed_first_and_then_by_last_use(shelf: Path) -> None:
    homes = [
        home_of(Environment(requirements=[item]).resolve(quiet)) for item in ("tiny<2", "tiny>=2", "numpy")
    ]
    for time, home in zip((1e9, 3e9, 2e9), homes):
        os.utime(home / "used", (time, time))
    environment_store.save("b", {}, homes[0] / "venv" / "bin" / "python")
    environment_store.save("a", {}, homes[0] / "venv" / "bin" / "python")
    assert [each.home for each in environment_store.stored()] == [homes[0], homes[1], homes[2]]
    assert environment_store.stored()[0].names == ("a", "b")
