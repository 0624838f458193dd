"""Packages of torch: TorchScript, and, as the platform torch, torch.export archives and modules with their weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..package import DATA, Package
from ..packages.draft import Draft
from .code import add_code, add_data, checked_roots
from .packing import add_file, create, exactly_one

_Path = str | os.PathLike[str]


def create_torchscript_package(
    *, module: Any = None, module_path: _Path | None = None, **common: Any
) -> Package:
    """Exactly one of `module` (a ScriptModule) and `module_path`, a file that it saved. The others are `packing.create`'s."""
    exactly_one(module=module, module_path=module_path)

    def fill(draft: Draft) -> None:
        if module_path is not None:
            add_file(draft, f"{DATA}/model.pt", module_path)
            return
        import torch

        torch.jit.save(module, str(draft.path(f"{DATA}/model.pt")))

    return create("torchscript", fill, **common)


def create_torch_package(
    *,
    exported: Any = None,
    model_path: _Path | None = None,
    code_path_spec: Iterable[Mapping[str, Any]] | None = None,
    entrypoint_package: str | None = None,
    entrypoint: str | None = None,
    data_paths: Iterable[Mapping[str, _Path]] = (),
    state_dict: _Path | None = None,
    input_names: Mapping[str, str] | None = None,
    output_names: Mapping[str, str] | None = None,
    **common: Any,
) -> Package:
    """Exactly one of `exported` (an ExportedProgram), `model_path` (a ``.pt2`` file) and `code_path_spec`.

    With code, ``entrypoint(data_path)`` returns a module, or another callable of tensors; `state_dict` is a file of its weights.
    `input_names`, `output_names`: what the model calls the tensors of the specs, where the names differ. The others are `packing.create`'s.
    """
    exactly_one(exported=exported, model_path=model_path, code_path_spec=code_path_spec)
    if (code_path_spec is None) != (entrypoint is None) or (entrypoint is None) != (
        entrypoint_package is None
    ):
        raise ValueError("code_path_spec, entrypoint_package and entrypoint go together")
    if state_dict is not None and code_path_spec is None:
        raise ValueError("state_dict is for a model made by code; a .pt2 file has weights of its own")
    roots = checked_roots(code_path_spec or (), common.get("package_path") or common.get("neuropod_path"))

    def fill(draft: Draft) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if code_path_spec is not None:
            add_code(draft, roots)
            settings.update(entrypoint_package=entrypoint_package, entrypoint=entrypoint)
        else:
            settings["model"] = "model.pt2"
            if model_path is not None:
                add_file(draft, f"{DATA}/model.pt2", model_path)
            else:
                import torch

                torch.export.save(exported, str(draft.path(f"{DATA}/model.pt2")))
        add_data(draft, data_paths)
        if state_dict is not None:
            name = "state_dict" + os.path.splitext(os.fspath(state_dict))[1]
            add_file(draft, f"{DATA}/{name}", state_dict)
            settings["options"] = {"state_dict": name}
        return {**settings, **named(input_names, output_names)}

    return create("torch", fill, **common)


def named(inputs: Mapping[str, str] | None, outputs: Mapping[str, str] | None) -> dict[str, Any]:
    """What ``0/config.json`` says of the model's own names."""
    given = {"inputs": dict(inputs or {}), "outputs": dict(outputs or {})}
    return {key: value for key, value in given.items() if value}
