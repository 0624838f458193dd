"""Whatever bytes a package is made of: it is read, or refused with a PackageError, and a refusal leaves nothing on disk."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opexec.errors import PackageError
from opexec.package import is_package, read
from opexec.packages.config import PLATFORMS, PackageConfig, parse_config
from opexec.packages.json import parse_json
from opexec.packages.manifest import parse_manifest
from opexec.packages.platform_config import parse_platform_config
from opexec.problem import Problem

from .package_samples import CONFIG, CORPUS, PUBLISHED, manifest_of, sample, zip_of

PROBLEM = {
    "name": "p",
    "inputs": CONFIG["input_spec"],
    "outputs": CONFIG["output_spec"],
    "arrays": None,
    "test_data": [{"inputs": {"x": [[[1, 2, 3]]], "y": 1}, "outputs": {"out": [1]}}],
}


@pytest.fixture(scope="module", autouse=True)
def cache() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPEXEC_CACHE", folder)
        yield Path(folder)


def seeds() -> list[bytes]:
    """Real zips: of the published packages, and of one with everything in it."""
    found = []
    full = sample(environment={"python": "3.8"}, custom_ops=["op.so"]) | {"0/ops/op.so": b"ELF", "0/é": b""}
    with tempfile.TemporaryDirectory() as folder:
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            path = zip_of(Path(folder) / "p.zip", full | {"manifest.json": manifest_of(full)}, method)
            found.append(path.read_bytes())
        for source in sorted(PUBLISHED.iterdir()):
            files = {
                path.relative_to(source).as_posix(): path.read_bytes()
                for path in sorted(source.rglob("*"))
                if path.is_file()
            }
            found.append(zip_of(Path(folder) / "q.zip", files).read_bytes())
    return found


SEEDS = seeds()
_SIGNATURES = [
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"PK\6\6",
    b"PK\6\7",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"../",
    b"\0",
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(SEEDS)))
    # Half of the changes near the end, where the directory is.
    for _ in range(draw(st.integers(1, 6))):
        late = draw(st.booleans())
        at = draw(st.integers(max(0, len(content) - 600) if late else 0, max(0, len(content) - 1)))
        piece = draw(st.binary(min_size=1, max_size=4) | st.sampled_from(_SIGNATURES))
        how = draw(st.sampled_from(["write", "insert", "delete", "cut", "repeat"]))
        if how == "write":
            content[at : at + len(piece)] = piece
        elif how == "insert":
            content[at:at] = piece
        elif how == "delete":
            del content[at : at + draw(st.integers(1, 50))]
        elif how == "cut":
            del content[at:]
        else:
            content[at:at] = content[at : at + draw(st.integers(1, 300))]
    return bytes(content)


def try_zip(content: bytes, cache: Path) -> bool:
    """Whether it is a package; anything but a PackageError fails the test."""
    packages = cache / "packages"
    before = set(packages.iterdir()) if packages.exists() else set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p.zip")
        path.write_bytes(content)
        is_package(path)
        try:
            package = read(path)
            package.hash()
            unpacked = package.folder()
        except PackageError as error:
            assert error.package == str(path) and str(error).startswith(str(path))
            after = set(packages.iterdir()) if packages.exists() else set()
            assert {entry for entry in after - before if entry.name != "hashes"} == set()
            return False
        sizes = {
            file.relative_to(unpacked).as_posix(): file.stat().st_size
            for file in unpacked.rglob("*")
            if file.is_file()
        }
        assert sizes == package.files
        return True


@settings(max_examples=300)
@given(content=damaged())
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_zip_is_read_or_refused(content: bytes, cache: Path) -> None:
    try_zip(content, cache)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes, cache: Path) -> None:
    try_zip(content, cache)
    for parse in (
        parse_json,
        lambda text, *_: parse_manifest(text, "p"),
        lambda text, *_: parse_config(text, "p"),
    ):
        with pytest.raises(PackageError):
            parse(content, "p", "f")  # type: ignore[operator]


def test_the_seeds_are_packages(cache: Path) -> None:
    assert [try_zip(content, cache) for content in SEEDS] == [True] * len(SEEDS)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_corpus(cache: Path) -> None:
    files = sorted(CORPUS.iterdir())
    assert len(files) >= 12
    for path in files:
        if path.suffix == ".zip":
            assert try_zip(path.read_bytes(), cache) != path.name.startswith("bad_"), path.name
        else:
            with pytest.raises(PackageError):
                parse_config(path.read_bytes(), "p")


# ---- JSON

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10)
    | st.sampled_from(["float32", "string", "*", ">=1", "x", "python", "0/wheels", "GPU", 2**63, 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, start: dict[str, Any]) -> Any:
    """JSON that begins as something right, with some of it replaced, taken out or added."""
    content = json.loads(json.dumps(start))
    for _ in range(draw(st.integers(1, 3))):
        place, key = [content], 0
        node = content
        parent: Any = place
        while isinstance(node, dict | list) and node and draw(st.integers(0, 3)):
            parent = node
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            node = node[key]
        how = draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "remove" and parent is not place:
            del parent[key]
        elif how == "add" and isinstance(node, dict):
            node[
                draw(st.text(max_size=5) | st.sampled_from(["environment", "custom_ops", "init_op_names"]))
            ] = draw(values)
        else:
            parent[key] = draw(values)
        content = place[0]
    return content


FULL = CONFIG | {
    "platform_version_semver": ">=1",
    "custom_ops": ["op.so"],
    "input_tensor_device": {"x": "CPU"},
    "environment": {
        "python": "3.8",
        "requirements": ["six"],
        "env_vars": {"A": "b"},
        "find_links": ["0/wheels"],
    },
    "more": {"a": [1]},
}


@settings(max_examples=200)
@given(content=changed(FULL))
def test_a_changed_config_is_read_or_refused(content: Any) -> None:
    try:
        config = parse_config(json.dumps(content).encode(), "p")
    except PackageError as error:
        assert error.file == "config.json"
        return
    assert isinstance(config, PackageConfig)
    assert config.checked("p") == config and config.checked("p").to_json() == config.to_json()
    known = json.loads(config.to_json())
    assert {key: known[key] for key in config.other} == {key: content[key] for key in config.other}


@given(
    content=changed(
        {
            "node_name_mapping": {"x": "x:0", "y": "y:0", "out": "z"},
            "init_op_names": ["a"],
            "entrypoint_package": "a",
            "entrypoint": "b",
            "model": "m",
            "options": {"state_dict": "m"},
            "inputs": {"x": "X"},
            "outputs": {"out": "Y"},
        }
    ),
    platform=st.sampled_from(PLATFORMS),
)
def test_a_changed_platform_config_is_read_or_refused(content: Any, platform: str) -> None:
    config = parse_config(json.dumps(CONFIG | {"platform": platform}).encode(), "p")
    try:
        found = parse_platform_config(json.dumps(content).encode(), config, "p", ["0/data/m"])
    except PackageError as error:
        assert error.file == "0/config.json" or error.field is None
        return
    assert isinstance(found, dict)


@given(content=changed(PROBLEM))
def test_a_changed_problem_is_read_or_refused(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p.json")
        path.write_text(json.dumps(content))
        try:
            problem = Problem.read(path)
        except PackageError as error:
            assert error.package == os.fspath(folder)
            return
        assert problem.check(problem.inputs, problem.outputs).ok
