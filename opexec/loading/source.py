"""What `load` was given: which platform runs it, and where exactly it is."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import LoadError
from ..workers.platforms import PLATFORMS
from . import formats
from .formats import KNOWN

if TYPE_CHECKING:
    from ..package import Limits, Package

_ARCHIVES = (".zip", ".neuropod")


@dataclass(frozen=True)
class Source:
    """A model to load, with nothing left that depends on the caller's working directory."""

    platform: str
    """The platform that loads it: a module of `workers.platforms`, or one that is registered in the model's environment."""
    target: str
    """The absolute path of a file or folder, ``"/path/to/file.py:factory"`` or ``"package.module:factory"``."""
    package: Package | None = None
    """What the file or folder says of itself, if it is a package."""


def parse(
    source: str | os.PathLike[str], platform: str | None = None, limits: Limits | None = None
) -> Source:
    """Find out what to load. A leading ``~`` is the user's home folder; links are not followed.

    The format of a file or folder is told from its content, unless `platform` is given. `limits`: how large a package may be.

    Raises:
        LoadError: with stage ``"source"``, if there is no such file, or it is none that can be loaded.
        PackageError: it is a package, and broken.
    """
    if platform is not None and (not isinstance(platform, str) or not platform):
        raise ValueError(
            f"platform is {platform!r}; expected its name, as in {', '.join(map(repr, PLATFORMS))}"
        )
    try:
        given = os.fsdecode(os.fspath(source))
    except TypeError:
        raise _refused(f"{KNOWN}; received an object of type {type(source).__name__}") from None
    path = os.path.abspath(os.path.expanduser(given))
    place, _, factory = given.rpartition(":")
    if os.path.exists(path):
        package = _package(path, platform, limits)
        if package is not None:
            return Source(package.platform, path, package)
        return Source(platform or _platform_of(path, given), path)
    if place.endswith(".py"):
        return Source(platform or "python", f"{_python_file(place, given)}:{_checked(factory, given)}")
    if platform is not None and platform not in PLATFORMS:
        return Source(platform, given)  # what a platform of the user's own makes of it is up to that
    if place and all(part.isidentifier() for part in place.split(".")):
        return Source(platform or "python", f"{place}:{_checked(factory, given)}")
    if given.lower().endswith((".py", *_ARCHIVES, *formats.ENDINGS)) or os.sep in given:
        raise _refused(f"there is no file or folder {path}; check the path")
    raise _refused(f"{KNOWN}; received {given!r}, which is neither a file nor of that form")


def _package(path: str, platform: str | None, limits: Limits | None) -> Package | None:
    """The package at a path; None for what is none, and for what a platform of the user's own is to load."""
    if platform is not None and platform not in PLATFORMS:
        return None
    if os.path.isdir(path):
        means_to_be = os.path.lexists(os.path.join(path, "config.json"))
    else:
        means_to_be = _is_zip(path)
    if not means_to_be:
        return None
    from .. import package as packages  # only here: most programs load none

    if not packages.is_package(path, limits=limits):
        try:
            if platform is not None or formats.recognise(path) is not None:
                return None
        except OSError:
            return None
    package = packages.read(path, limits=limits)
    if platform is not None and platform != package.platform:
        raise _refused(
            f"{path} is a package of the platform {package.platform}; platform={platform!r} was given"
        )
    return package


def _is_zip(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06") or path.endswith(_ARCHIVES)
    except OSError:
        return False


def _platform_of(path: str, given: str) -> str:
    if path.endswith(".py") and os.path.isfile(path):
        defined = ", ".join(_functions(path)) or "none at its top level"
        raise _refused(
            f"a Python file needs the name of its factory: '{given}:factory'. Functions in {path}: {defined}"
        )
    try:
        found = formats.recognise(path)
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}") from None
    if found is None:
        kind = (
            "a folder that holds none of these" if os.path.isdir(path) else f"none of these{_beginning(path)}"
        )
        raise _refused(
            f"{KNOWN}; {path} is {kind}. If a platform of your own loads it, name that by platform="
        )
    if found.platform is None:
        raise _refused(f"{path} holds {found.what}; {found.cure}")
    return found.platform


def _beginning(path: str) -> str:
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        head = file.read(16)
    return f" (it begins with {head!r})" if head else " (it is empty)"


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
