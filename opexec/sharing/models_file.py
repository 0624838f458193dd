"""The file that `opexec up` reads: a table for each model, with the arguments of `opexec.load`.

    [models.detector]
    source = "detector.onnx"
    env = { python = "3.9", requirements = ["onnxruntime==1.14.1"] }
    replicas = 2

    [models.detector.batch]
    max_size = 16
    max_delay = 0.002

`batch` is a table of `BatchPolicy`'s fields. `env` is a table of `Environment`'s arguments, or a text: the name of a saved environment or a path. Paths are relative to the file's folder.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..batching.policy import BatchPolicy
from ..environment import Environment
from ..errors import OpexecError
from ..loading.load import load
from ..loading.request import Request
from . import places

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Arguments of `load` that make no sense in a file of models that are shared.
_NOT_HERE = {
    "name": "it is the table's",
    "wait_ready": "all models are waited for",
    "isolation": "a model that is shared runs in a worker",
}


class FileError(OpexecError):
    """A models file cannot be read, or is wrong: the message names file, table and key."""


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> arguments of `load`, checked as far as can be without loading, in the order of the file. Raises FileError."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: is not TOML: {error}") from error
    others = [key for key in tables if key != "models"]
    if others:
        raise FileError(f"{path}: {others[0]}: expected tables [models.NAME] and nothing else")
    models = tables.get("models")
    if not isinstance(models, dict) or not models:
        raise FileError(f"{path}: models: expected at least one table [models.NAME]")
    return {name: _model(path, name, table) for name, table in models.items()}


def _model(path: Path, name: str, table: object) -> dict[str, Any]:
    where = f"{path}: models.{name}"
    try:
        places.check_name(name)
    except ValueError as error:
        raise FileError(f"{where}: {error}") from None
    if not isinstance(table, dict):
        raise FileError(f"{where}: expected a table, found {table!r}")
    known = [key for key in inspect.signature(load).parameters if key not in _NOT_HERE]
    for key in table:
        if key in _NOT_HERE:
            raise FileError(f"{where}.{key}: cannot be given here: {_NOT_HERE[key]}")
        if key not in known:
            raise FileError(
                f"{where}.{key}: is no argument of opexec.load; those for here are {', '.join(known)}"
            )
    if not isinstance(table.get("source"), str):
        raise FileError(f"{where}.source: expected a text, found {table.get('source')!r}")
    arguments = {**table, "name": name, "source": _path(path.parent, table["source"])}
    if "env" in table:
        arguments["env"] = _environment(path, f"{where}.env", table["env"])
    if "batch" in table:
        arguments["batch"] = _batch(f"{where}.batch", table["batch"])
    _check(where, arguments)
    return arguments


def _environment(path: Path, where: str, given: object) -> Environment | str:
    if isinstance(given, str):
        return str(path.parent / given) if "/" in given and not given.startswith("~") else given
    if not isinstance(given, dict):
        raise FileError(f"{where}: expected a table of an Environment's arguments or a text, found {given!r}")
    known = list(inspect.signature(Environment).parameters)
    for key in given:
        if key not in known:
            raise FileError(
                f"{where}.{key}: is no argument of opexec.Environment; those are {', '.join(known)}"
            )
    try:
        return Environment(**given)
    except (OpexecError, TypeError, ValueError) as error:
        raise FileError(f"{where}: {error}") from error


def _batch(where: str, given: object) -> BatchPolicy:
    if not isinstance(given, dict):
        raise FileError(f"{where}: expected a table of a BatchPolicy's fields, found {given!r}")
    known = list(inspect.signature(BatchPolicy).parameters)
    for key, value in given.items():
        if key not in known:
            raise FileError(f"{where}.{key}: is no field of opexec.BatchPolicy; those are {', '.join(known)}")
        try:
            BatchPolicy(**{key: value})
        except ValueError as error:
            raise FileError(f"{where}.{key}: {error}") from error
    return BatchPolicy(**given)


def _check(where: str, arguments: Mapping[str, Any]) -> None:
    """Have `load`'s own checks look at the arguments: one after the other, so that the message can name the one that is wrong."""
    base = {"source": arguments["source"], "name": arguments["name"]}
    if "platform" in arguments:
        base["platform"] = arguments["platform"]
    try:
        _request(base)
    except (OpexecError, TypeError, ValueError) as error:
        raise FileError(f"{where}.source: {error}") from error
    for key in arguments:
        if key not in base:
            try:
                _request({**base, key: arguments[key]})
            except (OpexecError, TypeError, ValueError) as error:
                raise FileError(f"{where}.{key}: {error}") from error
    try:
        _request(arguments)
    except (OpexecError, TypeError, ValueError) as error:
        raise FileError(f"{where}: {error}") from error


def _request(arguments: Mapping[str, Any]) -> None:
    Request(**arguments)


def _path(folder: Path, source: str) -> str:
    """A source relative to the file's folder, if something is there; ``package.module:factory`` stays as it is."""
    file, colon, factory = source.rpartition(":") if ":" in source else (source, "", "")
    return f"{folder / file}{colon}{factory}" if (folder / file).exists() else source
