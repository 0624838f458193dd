"""Packages of torch: TorchScript, and, as the platform torch, torch.export archives and modules with their weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..package import DATA, Package
from ..packages.draft import Draft
from ..spec import TensorSpec, parse_specs
from .exports import create_export
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

        if not isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"module is of type {type(module).__name__}; expected what torch.jit.script or torch.jit.trace makes of it"
            )
        torch.jit.save(module, str(draft.path(f"{DATA}/model.pt")))

    return create("torchscript", fill, **common)


def create_torch_package(
    *, module: Any = None, exported: Any = None, state_dict: _Path | None = None, **more: Any
) -> Package:
    """Exactly one of `module`, `exported`, `model_path` (a ``.pt2`` file) and `code_path_spec`.

    `module`: a module, which torch.export makes an archive of here: `test_input_data` are its example, and its sizes may vary where the
    specs have a symbol or None. It takes the inputs by name.
    `exported`: an ExportedProgram.
    `state_dict`: with code, a file of the weights of the module that it makes.
    The others are `exports.create_export`'s and `packing.create`'s.
    """
    if state_dict is not None and more.get("code_path_spec") is None:
        raise ValueError("state_dict is for a model made by code; a .pt2 file has weights of its own")
    if module is not None and more.get("test_input_data") is None:
        raise ValueError(
            "module is given without test_input_data, which torch.export needs for an example; give them, or an ExportedProgram"
        )

    def save(path: Path) -> None:
        import torch

        torch.export.save(exported, str(path))

    def export(path: Path) -> None:
        import torch

        specs = parse_specs(more["input_spec"], "input") or ()
        torch.export.save(_exported(module, specs, more["test_input_data"]), str(path))

    def weights(draft: Draft) -> dict[str, Any]:
        if state_dict is None:
            return {}
        name = "state_dict" + os.path.splitext(os.fspath(state_dict))[1]
        add_file(draft, f"{DATA}/{name}", state_dict)
        return {"options": {"state_dict": name}}

    objects = {
        "module": None if module is None else export,
        "exported": None if exported is None else save,
    }
    return create_export("torch", "model.pt2", objects, more=weights, **more)


def _exported(module: Any, specs: tuple[TensorSpec, ...], example: Mapping[str, Any]) -> Any:
    import torch

    symbols: dict[str, Any] = {}
    tensors, shapes = {}, {}
    for spec in specs:
        if spec.name not in example:
            continue  # it has a default
        tensors[spec.name] = torch.as_tensor(example[spec.name])
        sizes = (None,) * tensors[spec.name].dim() if spec.shape is None else spec.shape
        shapes[spec.name] = {
            axis: symbols.setdefault(size, torch.export.Dim(size))
            if isinstance(size, str)
            else torch.export.Dim.AUTO
            for axis, size in enumerate(sizes)
            if not isinstance(size, int)
        }
    return torch.export.export(module, (), kwargs=tensors, dynamic_shapes=shapes)
