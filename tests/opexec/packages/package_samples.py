"""Packages for tests, written by hand and not by the code under test."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from opexec.spec import TensorSpec

PUBLISHED = Path(__file__).parents[2] / "data" / "packages"
CORPUS = Path(__file__).parents[2] / "data" / "package_corpus"

CONFIG: dict[str, Any] = {
    "name": "adder",
    "platform": "torchscript",
    "input_spec": [
        {"name": "x", "dtype": "float32", "shape": ["n", None, 3]},
        {"name": "y", "dtype": "double", "shape": None},
    ],
    "output_spec": [{"name": "out", "dtype": "float32", "shape": ["n"]}],
}
MODEL = b"no model, but no reader looks into it" * 50


def specs(text: str) -> tuple[TensorSpec, ...]:
    """`"x:n,? y:3 z:*"` -> three float32 specs: x of the shape (n, None), y of (3,), z of None."""
    found = []
    for item in text.split():
        name, _, dims = item.partition(":")
        shape = [None if dim == "?" else int(dim) if dim.isdigit() else dim for dim in dims.split(",") if dim]
        found.append(TensorSpec(name, "float32", None if dims == "*" else shape))
    return tuple(found)


def sample(config: dict[str, Any] | None = None, **changes: Any) -> dict[str, bytes]:
    """The files of a small package; `changes` to its config, of which None takes a key out."""
    content = {**(CONFIG if config is None else config), **changes}
    content = {key: value for key, value in content.items() if value is not None}
    return {"config.json": json.dumps(content).encode(), "0/data/model.pt": MODEL}


def manifest_of(files: dict[str, bytes]) -> bytes:
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return json.dumps({"manifest_version": 1, "files": listed}).encode()


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def zip_of(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
