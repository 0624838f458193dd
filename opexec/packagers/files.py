"""Packages of onnx, jax and scikit-learn, whose models are files (for jax, code too)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..package import DATA, Package
from ..packages.draft import Draft
from ..workers.platforms.sklearn import kind_of
from .code import add_data
from .exports import create_export
from .packing import add_file, create, exactly_one, named

_Path = str | os.PathLike[str]
_Names = Mapping[str, str] | None

_SKLEARN_FILES = {"pickle": "model.joblib", "xgboost": "model.ubj", "lightgbm": "model.txt"}


def create_onnx_package(
    *,
    model: Any = None,
    model_path: _Path | None = None,
    data_paths: Iterable[Mapping[str, _Path]] = (),
    input_names: _Names = None,
    output_names: _Names = None,
    **common: Any,
) -> Package:
    """Exactly one of `model` (a ModelProto, or its bytes) and `model_path`.

    `data_paths`: the files with the model's external data, which a model over 2 GB has: ``[{"path": file}]``, by the name that the model
    calls it, or with that as ``"packaged_name"``.
    `input_names`, `output_names`: what the model calls the tensors of the specs, where the names differ. The others are `packing.create`'s.
    """
    exactly_one(model=model, model_path=model_path)

    def fill(draft: Draft) -> dict[str, Any]:
        if model_path is not None:
            add_file(draft, f"{DATA}/model.onnx", model_path)
        else:
            content = model if isinstance(model, bytes) else model.SerializeToString()
            draft.write(f"{DATA}/model.onnx", content)
        add_data(draft, data_paths)
        return {"model": "model.onnx", **named(input_names, output_names)}

    return create("onnx", fill, **common)


def create_jax_package(*, exported: Any = None, **more: Any) -> Package:
    """Exactly one of `exported` (what ``jax.export`` gives), `model_path` (its serialized bytes in a file) and `code_path_spec`.

    The others are `exports.create_export`'s and `packing.create`'s.
    """

    def save(path: Path) -> None:
        path.write_bytes(bytes(exported.serialize()))

    return create_export("jax", "model.jaxexport", {"exported": None if exported is None else save}, **more)


def create_sklearn_package(
    *,
    model: Any = None,
    model_path: _Path | None = None,
    method: str | None = None,
    **common: Any,
) -> Package:
    """Exactly one of `model` (an estimator, dumped by joblib here, or a Booster of xgboost or lightgbm, saved as their own files) and
    `model_path` (joblib, pickle, xgboost, lightgbm).

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
        kind = _booster(model) or "pickle"
        if model_path is not None:
            if not os.path.isfile(model_path):
                raise ValueError(f"there is no file {os.fspath(model_path)}; check the path")
            with open(model_path, "rb") as file:
                kind = kind_of(file.read(64))
        name = _SKLEARN_FILES[kind]
        if model_path is not None:
            add_file(draft, f"{DATA}/{name}", model_path)
        elif kind != "pickle":
            model.save_model(str(draft.path(f"{DATA}/{name}")))
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


def _booster(model: Any) -> str | None:
    """The framework of a model that is no estimator: one that saves itself."""
    framework = type(model).__module__.partition(".")[0]
    return framework if type(model).__name__ == "Booster" and framework in _SKLEARN_FILES else None
