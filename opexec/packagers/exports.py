"""What the packagers of torch and jax share: the model is one file that the framework exported, or code that makes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..package import DATA, Package
from ..packages.draft import Draft
from .code import Code, add_data
from .packing import add_file, create, exactly_one, named

_Path = str | os.PathLike[str]


def create_export(
    platform: str,
    file: str,
    objects: Mapping[str, Callable[[Path], None] | None],
    *,
    model_path: _Path | None = None,
    code_path_spec: Iterable[Mapping[str, Any]] | None = None,
    entrypoint_package: str | None = None,
    entrypoint: str | None = None,
    data_paths: Iterable[Mapping[str, _Path]] = (),
    input_names: Mapping[str, str] | None = None,
    output_names: Mapping[str, str] | None = None,
    more: Callable[[Draft], Mapping[str, Any]] = lambda draft: {},
    **common: Any,
) -> Package:
    """A package of `platform`, whose exported model is called `file`; the keyword arguments are those that torch and jax have in common.

    `model_path`: the file of an exported model.
    `code_path_spec`, `entrypoint_package`, `entrypoint`: code, as for `create_python_package`, where ``entrypoint(data_path)`` returns the
    model: a callable of the framework's own arrays.
    `data_paths`: further files, as for `create_python_package`.
    `input_names`, `output_names`: what the model calls the tensors of the specs, where the names differ.
    The others are `packing.create`'s.

    `objects`, for packagers: by the name of the argument that has it, what saves an object; None where that was not given. Exactly one of
    them, `model_path` and `code_path_spec` is. `more` writes what a platform has beside, and returns what ``0/config.json`` says of it.
    """
    exactly_one(**objects, model_path=model_path, code_path_spec=code_path_spec)
    code = None
    if code_path_spec is not None and entrypoint_package is not None and entrypoint is not None:
        code = Code.of(code_path_spec, entrypoint_package, entrypoint, common)
    elif any(part is not None for part in (code_path_spec, entrypoint_package, entrypoint)):
        raise ValueError("code_path_spec, entrypoint_package and entrypoint go together")

    def fill(draft: Draft) -> dict[str, Any]:
        settings: dict[str, Any] = {"model": file} if code is None else code.add(draft)
        if model_path is not None:
            add_file(draft, f"{DATA}/{file}", model_path)
        for save in objects.values():
            if save is not None:
                save(draft.path(f"{DATA}/{file}"))
        add_data(draft, data_paths)
        return {**settings, **more(draft), **named(input_names, output_names)}

    return create(platform, fill, **common)
