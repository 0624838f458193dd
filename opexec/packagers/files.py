"""Packages of onnx, jax and scikit-learn, whose models are single files (for jax, code too)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..package import DATA, Package
from ..packages.draft import Draft
from ..workers.platforms.sklearn import kind_of
from .code import add_code, add_data, checked_roots
from .packing import add_file, create, exactly_one
from .torch import named

_Path = str | os.PathLike[str]
_Names = Mapping[str, str] | None

_SKLEARN_FILES = {"pickle": "model.joblib", "xgboost": "model.ubj", "lightgbm": "model.txt"}


def create_onnx_package(
    *,
    model: Any = None,
    model_path: _Path | None = None,
    input_names: _Names = None,
    output_names: _Names = None,
    **common: Any,
) -> Package:
    """Exactly one of `model` (a ModelProto, or its bytes) and `model_path`; files with external data lie beside that and are not taken along.

    `input_names`, `output_names`: what the model calls the tensors of the specs, where the names differ. The others are `packing.create`'s.
    """
    exactly_one(model=model, model_path=model_path)

    def fill(draft: Draft) -> dict[str, Any]:
        if model_path is not None:
            add_file(draft, f"{DATA}/model.onnx", model_path)
        else:
            content = model if isinstance(model, bytes) else model.SerializeToString()
            draft.write(f"{DATA}/model.onnx", content)
        return {"model": "model.onnx", **named(input_names, output_names)}

    return create("onnx", fill, **common)


def create_jax_package(
    *,
    exported: Any = None,
    model_path: _Path | None = None,
    code_path_spec: Iterable[Mapping[str, Any]] | None = None,
    entrypoint_package: str | None = None,
    entrypoint: str | None = None,
    data_paths: Iterable[Mapping[str, _Path]] = (),
    input_names: _Names = None,
    output_names: _Names = None,
    **common: Any,
) -> Package:
    """Exactly one of `exported` (what ``jax.export`` gives), `model_path` (its serialized bytes in a file) and `code_path_spec`, where
    ``entrypoint(data_path)`` returns a callable of jax arrays.

    `input_names`, `output_names`: what the model calls the tensors of the specs, where the names differ. The others are `packing.create`'s.
    """
    exactly_one(exported=exported, model_path=model_path, code_path_spec=code_path_spec)
    if (code_path_spec is None) != (entrypoint is None) or (entrypoint is None) != (
        entrypoint_package is None
    ):
        raise ValueError("code_path_spec, entrypoint_package and entrypoint go together")
    roots = checked_roots(code_path_spec or (), common.get("package_path") or common.get("neuropod_path"))

    def fill(draft: Draft) -> dict[str, Any]:
        settings: dict[str, Any] = {"model": "model.jaxexport"}
        if code_path_spec is not None:
            add_code(draft, roots)
            settings = {"entrypoint_package": entrypoint_package, "entrypoint": entrypoint}
        elif model_path is not None:
            add_file(draft, f"{DATA}/model.jaxexport", model_path)
        else:
            draft.write(f"{DATA}/model.jaxexport", bytes(exported.serialize()))
        add_data(draft, data_paths)
        return {**settings, **named(input_names, output_names)}

    return create("jax", fill, **common)


def create_sklearn_package(
    *,
    model: Any = None,
    model_path: _Path | None = None,
    method: str | None = None,
    **common: Any,
) -> Package:
    """Exactly one of `model` (an estimator, dumped by joblib here) and `model_path` (joblib, pickle, xgboost, lightgbm).

    `method`: what a call does, the first that the model has if left out. The spec has one input, whatever it is called, and one output.
    The others are `packing.create`'s.
    """
    exactly_one(model=model, model_path=model_path)
    names = [
        spec["name"] if isinstance(spec, Mapping) else spec.name for spec in common.get("input_spec", ())
    ]
    if len(names) != 1:
        raise ValueError(f"input_spec has {names}; expected one input, the rows of features")

    def fill(draft: Draft) -> dict[str, Any]:
        kind = "pickle"
        if model_path is not None:
            if not os.path.isfile(model_path):
                raise ValueError(f"there is no file {os.fspath(model_path)}; check the path")
            with open(model_path, "rb") as file:
                kind = kind_of(file.read(64))
        name = _SKLEARN_FILES[kind]
        if model_path is not None:
            add_file(draft, f"{DATA}/{name}", model_path)
        else:
            import joblib

            joblib.dump(model, str(draft.path(f"{DATA}/{name}")))
        settings: dict[str, Any] = {"model": name, "inputs": {names[0]: "X"}}
        if kind != "pickle":
            settings["framework"] = kind
        if method is not None:
            settings["options"] = {"method": method}
        return settings

    return create("sklearn", fill, **common)
