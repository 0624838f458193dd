"""What `load` was given: which platform runs it, and where exactly it is."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass

from .errors import LoadError

#: Endings of model files -> the platform that runs them.
ENDINGS = {".onnx": "onnx", ".pt": "torchscript", ".pth": "torchscript"}

_EXPECTED = (
    "expected an ONNX file (.onnx), a TorchScript file (.pt, .pth), 'path/to/file.py:factory' or 'package.module:factory', "
    "where the factory is a function that returns the model"
)


@dataclass(frozen=True)
class Source:
    """A model to load, with nothing left that depends on the caller's working directory."""

    platform: str
    """The module of `workers.platforms` that loads it."""
    target: str
    """The absolute path of a file, ``"/path/to/file.py:factory"`` or ``"package.module:factory"``."""


def parse(source: str | os.PathLike[str]) -> Source:
    """Find out what to load. A leading ``~`` is the user's home folder; links are not followed.

    Raises:
        LoadError: with stage ``"source"``, if there is no such file, or it is none that can be loaded.
    """
    try:
        given = os.fsdecode(os.fspath(source))
    except TypeError:
        raise _refused(f"{_EXPECTED}; received an object of type {type(source).__name__}") from None
    path = os.path.abspath(os.path.expanduser(given))
    place, _, factory = given.rpartition(":")
    if os.path.exists(path):
        return _existing(path, given)
    if place.endswith(".py"):
        return Source("python", f"{_python_file(place, given)}:{_checked(factory, given)}")
    if place and all(part.isidentifier() for part in place.split(".")):
        return Source("python", f"{place}:{_checked(factory, given)}")
    if given.endswith(".py") or os.path.splitext(given)[1].lower() in ENDINGS:
        raise _refused(f"there is no file {path}; check the path")
    raise _refused(f"{_EXPECTED}; received {given!r}, which is neither a file nor of that form")


def _existing(path: str, given: str) -> Source:
    if os.path.isdir(path):
        raise _refused(f"{_EXPECTED}; {path} is a folder")
    ending = os.path.splitext(path)[1].lower()
    if ending == ".py":
        defined = ", ".join(_functions(path)) or "none at its top level"
        raise _refused(
            f"a Python file needs the name of its factory: '{given}:factory'. Functions in {path}: {defined}"
        )
    if ending not in ENDINGS:
        raise _refused(
            f"{_EXPECTED}; {path} ends in {ending!r}" if ending else f"{_EXPECTED}; {path} has no ending"
        )
    return Source(ENDINGS[ending], path)


def _python_file(place: str, given: str) -> str:
    path = os.path.abspath(os.path.expanduser(place))
    if not os.path.isfile(path):
        raise _refused(f"there is no file {path}, which {given!r} names; check the path")
    return path


def _checked(factory: str, given: str) -> str:
    if not all(part.isidentifier() for part in factory.split(".")):
        raise _refused(
            f"expected the name of a factory after the colon, as in 'file.py:factory'; received {given!r}"
        )
    return factory


def _functions(path: str) -> list[str]:
    """Public functions that a file defines at its top level, read without running it."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return []  # whoever runs it says it better
    return [
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def _refused(message: str) -> LoadError:
    return LoadError(message, stage="source")
