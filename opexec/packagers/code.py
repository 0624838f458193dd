"""Packages whose model is Python code: python, and torch and jax with a function that makes the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..package import CODE, DATA, Package
from ..packages.draft import Draft
from .packing import add_file, create

_Path = str | os.PathLike[str]


def create_python_package(
    *,
    data_paths: Iterable[Mapping[str, _Path]] = (),
    code_path_spec: Iterable[Mapping[str, Any]],
    entrypoint_package: str,
    entrypoint: str,
    requirements: str | None = None,
    **common: Any,
) -> Package:
    """A model in Python: ``entrypoint(data_path)`` returns a callable of numpy arrays by name, which returns a dict of them.

    `data_paths`: ``[{"path": file or folder, "packaged_name": name in 0/data}]``.
    `code_path_spec`: ``[{"python_root": folder, "dirs_to_package": [folders in it]}]``; missing ``__init__.py`` files are added.
    `entrypoint_package`, `entrypoint`: the module and the function in it.
    The others are `packing.create`'s.
    """
    roots = _checked(code_path_spec, common)

    def fill(draft: Draft) -> dict[str, Any]:
        add_data(draft, data_paths)
        add_code(draft, roots)
        return {"entrypoint_package": entrypoint_package, "entrypoint": entrypoint}

    return create("python", fill, requirements=requirements, **common)


def create_pytorch_package(**arguments: Any) -> Package:
    """A torch model as a Python package, whose code converts to torch itself: `create_python_package` by another name."""
    return create_python_package(**arguments)


def add_data(draft: Draft, data_paths: Iterable[Mapping[str, _Path]]) -> None:
    for entry in data_paths or ():
        path = entry["path"]
        name = os.fspath(entry.get("packaged_name") or os.path.basename(os.fspath(path)))
        add_file(draft, f"{DATA}/{name}", path)
    draft.path(f"{DATA}/x").parent.mkdir(parents=True, exist_ok=True)


def add_code(draft: Draft, roots: Iterable[tuple[Path, list[str]]]) -> None:
    for root, folders in roots:
        for folder in folders:
            whole = os.path.normpath(folder) == "."
            names = sorted(os.listdir(root)) if whole else [os.path.normpath(folder)]
            for name in names:
                if name != "__pycache__" and not name.endswith(".pyc"):
                    add_file(draft, f"{CODE}/{name}", root / name)
    code = draft.folder / CODE
    for place, _, files in os.walk(code):
        if Path(place) != code and "__init__.py" not in files:
            (Path(place) / "__init__.py").write_bytes(b"")


def _checked(
    code_path_spec: Iterable[Mapping[str, Any]], common: Mapping[str, Any]
) -> list[tuple[Path, list[str]]]:
    return checked_roots(code_path_spec, common.get("package_path") or common.get("neuropod_path"))


def checked_roots(
    code_path_spec: Iterable[Mapping[str, Any]], target: _Path | None
) -> list[tuple[Path, list[str]]]:
    """The folders to package by their root. Raises ValueError for one that is missing, or holds the package that is to be written."""
    roots = []
    for entry in code_path_spec:
        root = Path(os.path.abspath(os.path.expanduser(os.fspath(entry["python_root"]))))
        folders = [os.fspath(folder) for folder in entry["dirs_to_package"]]
        for folder in folders:
            if os.path.isabs(folder) or os.path.normpath(folder).startswith(".."):
                raise ValueError(f"dirs_to_package has {folder!r}; expected a folder in {root}")
        if target is not None and root.resolve() in Path(os.path.abspath(target)).resolve().parents:
            raise ValueError(
                f"the package would be written to {target}, in the python_root {root}: it would be packaged itself. Choose another path"
            )
        roots.append((root, folders))
    return roots
