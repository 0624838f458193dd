"""Packages whose model is Python code: what goes into ``0/code``, and the packager of the platform python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    code = Code.of(code_path_spec, entrypoint_package, entrypoint, common)

    def fill(draft: Draft) -> dict[str, Any]:
        add_data(draft, data_paths)
        return code.add(draft)

    return create("python", fill, requirements=requirements, **common)


def create_pytorch_package(**arguments: Any) -> Package:
    """A torch model as a Python package, whose code converts to torch itself: `create_python_package` by another name."""
    return create_python_package(**arguments)


@dataclass(frozen=True)
class Code:
    """Folders of Python code, and the function in it that makes the model."""

    roots: tuple[tuple[Path, tuple[str, ...]], ...]
    """A folder, and the folders in it that are packaged."""
    entrypoint_package: str
    entrypoint: str

    @classmethod
    def of(
        cls,
        code_path_spec: Iterable[Mapping[str, Any]],
        entrypoint_package: str,
        entrypoint: str,
        common: Mapping[str, Any],
    ) -> Code:
        """`common`: arguments of `packing.create`. Raises ValueError for a folder that is missing, or holds the package that is to be written."""
        target = common.get("package_path") or common.get("neuropod_path")
        return cls(tuple(_root(entry, target) for entry in code_path_spec), entrypoint_package, entrypoint)

    def add(self, draft: Draft) -> dict[str, Any]:
        """Copy it. Returns what ``0/config.json`` says of it."""
        for root, folders in self.roots:
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
        return {"entrypoint_package": self.entrypoint_package, "entrypoint": self.entrypoint}


def add_data(draft: Draft, data_paths: Iterable[Mapping[str, _Path]]) -> None:
    for entry in data_paths or ():
        path = entry["path"]
        name = os.fspath(entry.get("packaged_name") or os.path.basename(os.fspath(path)))
        add_file(draft, f"{DATA}/{name}", path)
    draft.path(f"{DATA}/x").parent.mkdir(parents=True, exist_ok=True)


def _root(entry: Mapping[str, Any], target: _Path | None) -> tuple[Path, tuple[str, ...]]:
    root = Path(os.path.abspath(os.path.expanduser(os.fspath(entry["python_root"]))))
    folders = tuple(os.fspath(folder) for folder in entry["dirs_to_package"])
    for folder in folders:
        if os.path.isabs(folder) or os.path.normpath(folder).startswith(".."):
            raise ValueError(f"dirs_to_package has {folder!r}; expected a folder in {root}")
    if target is not None and root.resolve() in Path(os.path.abspath(target)).resolve().parents:
        raise ValueError(
            f"the package would be written to {target}, in the python_root {root}: it would be packaged itself. Choose another path"
        )
    return root, folders
