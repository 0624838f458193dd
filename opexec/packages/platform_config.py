"""``0/config.json``: the settings of a package's platform, held against its specs and its files."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..errors import PackageError
from .config import PackageConfig
from .json import Reader, parse_json
from .names import problem_of

PLATFORM_CONFIG = "0/config.json"
DATA = "0/data"

#: Their model is a file or folder that `model` names, or what a function of the package's code makes.
_WITH_MODEL = ("torch", "keras", "onnx", "jax", "sklearn", "caffe2", "tensorrt")
_WITH_CODE = ("torch", "keras", "jax")
#: What else than scikit-learn may run a model of that platform.
_FRAMEWORKS = ("sklearn", "xgboost", "lightgbm")


def parse_platform_config(
    text: bytes | None, config: PackageConfig, package: str, files: Collection[str]
) -> dict[str, Any]:
    """Read a ``0/config.json`` (None: there is none), for the platform that `config` names. `files`: the names of the package's files.

    tensorflow: `node_name_mapping` (a dict of texts) and `init_op_names` (a list of texts) are always there; old packages say ``{}`` for
    an empty list. python: `entrypoint_package` and `entrypoint` must be there. Platforms that Neuropod has not: so must these, or `model`.
    Other keys stay as they are. Raises PackageError.
    """
    content: dict[str, Any] = {} if text is None else parse_json(text, package, PLATFORM_CONFIG)
    reader = Reader(package, PLATFORM_CONFIG, content)
    if config.platform == "tensorflow":
        content.update(node_name_mapping=_nodes(reader, config), init_op_names=_operations(reader))
    elif config.platform == "python":
        _check_there(text, config, package, "which function makes its model")
        _check_entry_point(reader)
    elif config.platform in _WITH_MODEL:
        _check_there(text, config, package, "where its model is")
        _check_model(reader, config, files)
    return content


def _check_there(text: bytes | None, config: PackageConfig, package: str, what: str) -> None:
    if text is None:
        raise PackageError(
            f"is missing; a package of the platform {config.platform} says there {what}",
            package=package,
            file=PLATFORM_CONFIG,
        )


# ---- tensorflow


def _nodes(reader: Reader, config: PackageConfig) -> dict[str, str]:
    names = reader.content.get("node_name_mapping") or {}
    if not isinstance(names, dict) or not all(isinstance(node, str) and node for node in names.values()):
        raise reader.refused("node_name_mapping", "an object of tensor names and node names", names)
    for spec in (*config.inputs, *config.outputs):
        if names and spec.name not in names:
            raise reader.refused("node_name_mapping", f"a node for {spec.name!r} of the specs", names)
    return names


def _operations(reader: Reader) -> list[str]:
    names = reader.content.get("init_op_names") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise reader.refused("init_op_names", "a list of texts", names)
    return names


# ---- models made by code, and models in files


def _check_entry_point(reader: Reader) -> None:
    module = reader.text("entrypoint_package")
    if not all(part and problem_of(part) is None and "/" not in part for part in module.split(".")):
        raise reader.refused("entrypoint_package", "a module in 0/code, such as 'net.main'", module)
    reader.text("entrypoint")


def _check_model(reader: Reader, config: PackageConfig, files: Collection[str]) -> None:
    content = reader.content
    if config.platform in _WITH_CODE and ("entrypoint" in content or "entrypoint_package" in content):
        _check_entry_point(reader)
    else:
        _check_data(reader, "model", files)
    if content.get("framework", "sklearn") not in _FRAMEWORKS:
        raise reader.refused("framework", f"one of {', '.join(_FRAMEWORKS)}", content["framework"])
    options = content.get("options") or {}
    if not isinstance(options, dict):
        raise reader.refused("options", "an object", options)
    if "state_dict" in options:
        _check_data(Reader(reader.package, PLATFORM_CONFIG, options, "options."), "state_dict", files)
    for key, specs in (("inputs", config.inputs), ("outputs", config.outputs)):
        _check_names(reader, key, [spec.name for spec in specs])


def _check_data(reader: Reader, key: str, files: Collection[str]) -> None:
    """That `key` names a file or folder in ``0/data``, and none beside it."""
    name = reader.text(key)
    if problem_of(name) is not None:
        raise reader.refused(key, f"the name of a file or folder in {DATA}", name)
    path = f"{DATA}/{name}"
    if path not in files and not any(file.startswith(f"{path}/") for file in files):
        raise PackageError(
            f"is missing; {reader.prefix}{key} in {PLATFORM_CONFIG} names it",
            package=reader.package,
            file=path,
        )


def _check_names(reader: Reader, key: str, names: list[str]) -> None:
    """That `key` says of tensors of the specs what the model calls them."""
    content = reader.content.get(key) or {}
    if not isinstance(content, dict) or not all(isinstance(inner, str) for inner in content.values()):
        raise reader.refused(key, "an object of tensor names and the model's own names", content)
    for name in content:
        if name not in names:
            raise PackageError(
                f"is not in the specs, which have {', '.join(map(repr, names)) or 'none'}",
                package=reader.package,
                file=PLATFORM_CONFIG,
                field=f"{key}.{name}",
            )
