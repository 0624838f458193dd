"""Which names the files of a package may have, so that it unpacks to the same tree everywhere and never outside its folder.

A name is a relative path with ``/`` between its parts. Refused are those that leave the folder or mean another file on another system:
absolute ones, ``..``, backslashes and drive letters, control characters, what is no UTF-8, and two names that differ by case or by
Unicode normal form only (a file system that takes them for one would drop a file).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from ..errors import PackageError

MOST_BYTES = 1024  # of a whole name, in UTF-8
MOST_BYTES_OF_PART = 255  # what Linux's file systems allow

_DRIVE = re.compile(r"[A-Za-z]:")


def check_names(package: str, files: Iterable[str], folders: Iterable[str] = ()) -> None:
    """Raise PackageError, naming `package` and the file, unless these names can live together in one folder.

    `folders` are those that are listed for themselves; the folders that files lie in need not be.
    """
    leaves: set[str] = set()
    parents = set(folders)
    spellings: dict[str, str] = {}  # what a forgiving file system makes of a path -> the path as first met
    for name in parents:
        _check(package, name, spellings)
        parents = parents.union(_parents(name))
    for name in files:
        if name in leaves:
            raise PackageError("is there twice; a package has one file of a name", package=package, file=name)
        _check(package, name, spellings)
        leaves.add(name)
        parents.update(_parents(name))
    for name in sorted(leaves & parents):
        raise PackageError("is a file and a folder at the same time", package=package, file=name)


def problem_of(name: str) -> str | None:
    """What is wrong with one name, or None."""
    expected = "expected a relative path such as '0/data/model.pb'"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "its name is no UTF-8; rename it"
    parts = name.split("/")
    if not name or name.startswith("/") or _DRIVE.match(name):
        return f"{expected}, got an absolute or empty one"
    if "\\" in name:
        return f"{expected}, with '/' between its parts, got one with a backslash"
    if ".." in parts:
        return f"{expected}, got one that leaves the package's folder"
    if "" in parts or "." in parts:
        return f"{expected}, got one with an empty part or '.'"
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        return f"{expected}, got one with control characters"
    if size > MOST_BYTES or any(len(part.encode()) > MOST_BYTES_OF_PART for part in parts):
        return (
            f"its name is too long: at most {MOST_BYTES} bytes, and {MOST_BYTES_OF_PART} between two slashes"
        )
    return None


def _check(package: str, name: str, spellings: dict[str, str]) -> None:
    problem = problem_of(name)
    if problem is not None:
        raise PackageError(problem, package=package, file=name)
    for path in (*_parents(name), name):
        other = spellings.setdefault(_folded(path), path)
        if other != path:
            raise PackageError(
                f"differs from {other!r} by case or Unicode normal form only; rename one of the two",
                package=package,
                file=path,
            )


def _parents(name: str) -> Iterator[str]:
    at = name.find("/")
    while at >= 0:
        yield name[:at]
        at = name.find("/", at + 1)


def _folded(name: str) -> str:
    """Equal for names that are a canonical caseless match (the Unicode Standard, D145)."""
    if name.isascii():
        return name.lower()
    decomposed = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFD", decomposed)
