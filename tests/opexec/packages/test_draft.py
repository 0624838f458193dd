"""A package appears complete or not at all, and writing what was read changes nothing but what was asked for."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from opexec.environment import Environment
from opexec.errors import PackageError
from opexec.package import read
from opexec.packages import draft as draft_module
from opexec.packages.config import PackageConfig
from opexec.packages.draft import Draft, repack
from opexec.packages.environment import PackageEnvironment
from opexec.spec import TensorSpec

from .package_samples import PUBLISHED, folder_of, sample, zip_of

ADDER = PackageConfig(
    name="adder",
    platform="torchscript",
    inputs=(TensorSpec("x", "double", ("n", None)), TensorSpec("y", "string", None)),
    outputs=(TensorSpec("out", "float32", (2,)),),
    platform_version_semver=">=1.4 <2",
    input_tensor_device={"x": "CPU"},
    environment=PackageEnvironment(python="3.8", requirements=("torch==1.4.0",)),
    other={"author": {"name": "me"}},
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that holds nothing but what a draft makes there."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def fill(draft: Draft) -> None:
    draft.write("0/data/model.pt", b"model")
    draft.configure(ADDER, {"key": "value"})


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_draft_becomes_a_package(place: Path, as_zip: bool) -> None:
    target = place / "adder.zip"
    with Draft(target, as_zip=as_zip) as draft:
        fill(draft)
        tried = draft.check()
        assert tried.config == ADDER and tried.path.parent == place and not target.exists()
        folder_of(draft.folder, {"0/code/__pycache__/m.cpython-37.pyc": b"left by trying it"})
        package = draft.publish()
    assert os.listdir(place) == ["adder.zip"]
    assert package.path == target and package.is_zip == as_zip
    assert package.config == ADDER and package.platform_config == {"key": "value"}
    assert package.hash() == tried.hash() if tried.path.exists() else True
    package.verify()
    assert not list(target.rglob("__pycache__"))


def test_what_config_json_looks_like(place: Path) -> None:
    with Draft(place / "p", as_zip=False) as draft:
        fill(draft)
        draft.publish()
    assert json.loads((place / "p" / "config.json").read_text()) == {
        "name": "adder",
        "platform": "torchscript",
        "platform_version_semver": ">=1.4 <2",
        "input_spec": [
            {"name": "x", "dtype": "float64", "shape": ["n", None]},
            {"name": "y", "dtype": "string", "shape": None},
        ],
        "output_spec": [{"name": "out", "dtype": "float32", "shape": [2]}],
        "custom_ops": [],
        "input_tensor_device": {"x": "CPU", "y": "GPU"},
        "environment": {"python": "3.8", "requirements": ["torch==1.4.0"]},
        "author": {"name": "me"},
    }


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_draft_that_is_given_up_leaves_nothing(place: Path, as_zip: bool) -> None:
    with Draft(place / "p", as_zip=as_zip) as draft:
        fill(draft)
        draft.check()
    with pytest.raises(ZeroDivisionError), Draft(place / "p", as_zip=as_zip) as draft:
        fill(draft)
        1 / 0  # noqa: B018
    with pytest.raises(PackageError, match=r"0/data/model\.pt: is missing"):
        with Draft(place / "p", as_zip=as_zip) as draft:
            draft.configure(ADDER)
            draft.publish()
    assert os.listdir(place) == []


def test_an_error_names_the_path_that_was_given(place: Path) -> None:
    with pytest.raises(PackageError) as caught, Draft(place / "adder.zip") as draft:
        draft.write("0/data/model.pt", b"model")
        draft.check()
    assert caught.value.package == str(place / "adder.zip")
    assert str(caught.value).startswith(f"{place / 'adder.zip'}: config.json: is missing")


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_full_disk_is_said_and_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, as_zip: bool
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(draft_module, "write_zip", full)
    monkeypatch.setattr(os, "rename", full)
    with (
        pytest.raises(PackageError, match="adder.zip: cannot be written: No space left on device"),
        Draft(place / "adder.zip", as_zip=as_zip) as draft,
    ):
        fill(draft)
        draft.publish()
    assert not os.listdir(place)


def test_what_is_tried_has_no_folder_that_a_zip_would_not_have(place: Path) -> None:
    with Draft(place / "adder.zip") as draft:
        fill(draft)
        draft.path("0/data/empty/deeper/x").parent.mkdir(exist_ok=True)
        draft.path("0/code/x")
        draft.check()
        assert sorted(os.listdir(draft.folder / "0")) == ["config.json", "data"]
        assert os.listdir(draft.folder / "0/data") == ["model.pt"]


@pytest.mark.parametrize("as_zip", [True, False])
def test_code_that_looks_into_an_empty_data_folder_finds_one(place: Path, as_zip: bool) -> None:
    with Draft(place / "first.zip") as draft:
        draft.write("0/code/m.py", b"")
        draft.configure(replace(ADDER, platform="python"), {"entrypoint_package": "m", "entrypoint": "f"})
        package = draft.publish()
    assert os.listdir(package.data_folder()) == []
    again = repack(package, place / "again", as_zip=as_zip)
    assert os.listdir(again.data_folder()) == [] and again.hash() == package.hash()


@pytest.mark.parametrize("as_zip", [True, False])
def test_nothing_is_overwritten(place: Path, as_zip: bool) -> None:
    (place / "p").write_bytes(b"mine")
    with pytest.raises(ValueError, match="exists already"), Draft(place / "p", as_zip=as_zip):
        pass
    (place / "p").unlink()
    with pytest.raises(PackageError, match="exists already"), Draft(place / "p", as_zip=as_zip) as draft:
        fill(draft)
        (place / "p").write_bytes(b"mine")
        draft.publish()
    assert (place / "p").read_bytes() == b"mine" and os.listdir(place) == ["p"]


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="cannot be written: No such file"), Draft(tmp_path / "none" / "p"):
        pass


def test_one_that_appears_in_the_very_last_moment_is_not_overwritten(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        target.write_bytes(b"mine")
        link(source, target)

    with pytest.raises(PackageError, match="exists already"), Draft(place / "p") as draft:
        fill(draft)
        monkeypatch.setattr(os, "link", late)
        draft.publish()
    assert (place / "p").read_bytes() == b"mine" and os.listdir(place) == ["p"]


def test_a_file_system_without_hard_links(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    with Draft(place / "p") as draft:
        fill(draft)
        assert draft.publish().name == "adder"
    assert os.listdir(place) == ["p"]


def test_files_and_folders_are_added(place: Path, tmp_path: Path) -> None:
    source = folder_of(
        tmp_path / "source", {"a.py": b"a", "sub/b.py": b"b", "__pycache__/a.pyc": b"", "sub/c.pyc": b""}
    )
    (source / "link").symlink_to("a.py")
    with Draft(place / "p.zip") as draft:
        fill(draft)
        draft.add("0/code/source", source)
        draft.add("0/data/a", source / "a.py")
        with pytest.raises(PackageError, match="0/data/a: is there already"):
            draft.add("0/data/a", source / "a.py")
        with pytest.raises(PackageError, match="0/data/none: .*none cannot be copied"):
            draft.add("0/data/none", tmp_path / "none")
        for name in ("../x", "/x", ""):
            with pytest.raises(PackageError):
                draft.add(name, source)
        package = draft.publish()
    code = {name for name in package.files if name.startswith("0/code")}
    assert code == {"0/code/source/a.py", "0/code/source/sub/b.py", "0/code/source/link"}
    assert (package.folder() / "0/code/source/link").read_bytes() == b"a"


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"platform": "mxnet"}, "platform"),
        ({"platform_version_semver": "new"}, "platform_version_semver"),
        ({"custom_ops": ("a/b.so",)}, "custom_ops[0]"),
        ({"input_tensor_device": {"z": "CPU"}}, "input_tensor_device.z"),
        ({"environment": PackageEnvironment(requirements=("==",))}, "environment.requirements[0]"),
        ({"inputs": (TensorSpec("x", "int8", (0,)),)}, "input_spec[0].shape[0]"),
    ],
)
def test_what_could_not_be_read_is_not_written(place: Path, changes: dict[str, object], field: str) -> None:
    with pytest.raises(PackageError) as caught, Draft(place / "p.zip") as draft:
        draft.configure(replace(ADDER, **changes))  # type: ignore[arg-type]
    assert caught.value.field == field and os.listdir(place) == []


# ---- writing what was read


def test_the_published_packages_load_again_byte_for_byte(place: Path) -> None:
    for source in PUBLISHED.iterdir():
        files = {
            path.relative_to(source).as_posix(): path.read_bytes()
            for path in source.rglob("*")
            if path.is_file()
        }
        packed = repack(read(source), place / f"{source.name}.zip", manifest=False)
        assert packed.hash() == read(source).hash() and packed.config == read(source).config
        folder = repack(packed, place / source.name, as_zip=False, manifest=False)
        assert {name: (folder.path / name).read_bytes() for name in folder.files} == files
        again = repack(folder, place / f"{source.name}2.zip", manifest=False)
        assert again.path.read_bytes() == packed.path.read_bytes()
        small = repack(folder, place / f"{source.name}3.zip", manifest=False, compress=True)
        assert small.hash() == packed.hash()


def test_unknown_keys_survive_a_new_config(place: Path) -> None:
    source = read(
        zip_of(
            place / "p.zip",
            sample(author={"name": ["me"]}, license=None, zeta=1, environment={"python": "3.8"}),
        )
    )
    changed = repack(source, place / "q.zip", config=replace(source.config, name="other"))
    assert changed.name == "other" and dict(changed.config.other) == {"author": {"name": ["me"]}, "zeta": 1}
    assert changed.environment == source.environment and changed.inputs == source.inputs
    assert read(changed.folder()).config == changed.config


def test_a_package_that_is_damaged_is_not_written_anew(place: Path) -> None:
    files = sample() | {"manifest.json": b'{"manifest_version": 1, "files": {}}'}
    with pytest.raises(PackageError, match="not listed"):
        repack(read(zip_of(place / "p.zip", files)), place / "q.zip")
    assert os.listdir(place) == ["p.zip"]


def test_an_environment_of_python_becomes_one_of_a_package() -> None:
    environment = Environment(python="3.8", requirements=["Six", "numpy<2"], env_vars={"B": "2", "A": "1"})
    said = PackageEnvironment.of(environment)
    assert said.to_dict() == {
        "python": "3.8",
        "requirements": ["numpy<2", "six"],
        "env_vars": {"A": "1", "B": "2"},
    }
    assert Environment(**said.arguments(Path("/"))) == environment


def test_a_file_is_hashed_once_unless_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    hash_file = draft_module.hash_file
    monkeypatch.setattr(
        draft_module, "hash_file", lambda *given: hashed.append(given[1]) or hash_file(*given)
    )
    monkeypatch.setattr(draft_module, "SETTLED_NS", -1 << 62)  # files are as new as can be here
    with Draft(tmp_path / "p") as draft:
        for name, content in sample().items():
            draft.write(name, content)
        draft.check()
        draft.check()
        assert sorted(hashed) == ["0/data/model.pt", "config.json"]
        (draft.folder / "0/data/model.pt").write_bytes(b"changed, and of another length")
        draft.publish().verify()
    assert hashed[2:] == ["0/data/model.pt"]
