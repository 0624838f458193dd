"""What a conda ``environment.yml`` takes from this machine beside its own text: files and packages that pip is to install from.

It is read without a YAML parser, by looking at every item for what would be a path to pip. An item that only looks like one does no
harm: it names nothing that is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from . import requirements_file
from .requirement import content_of

# As pip takes them, also -rfile, -r=file and --requirement=file.
_OPTION = re.compile(
    r"(?:-([rcef])|--(requirement|constraint|editable|find-links))(?(1)[=\s]*|(?:=|\s+))(.+)"
)


def taken_from(file: Path, text: str) -> list[Any]:
    """What decides what such a file installs and is not in its text: the lines of requirements files and the contents of local
    packages, as JSON takes it. Empty where the text says all.

    `file`: paths are relative to its folder, as pip is run there.
    """
    seen: dict[Path, Any] = {}
    for item in _items(text):
        _take(item, file.parent, seen)
    return list(seen.values())


def _items(text: str) -> Iterator[str]:
    """Whatever may be an item of a list in YAML: on a line of its own, or between brackets."""
    for line in requirements_file.filled_in(text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line)
        item = re.sub(r"^(-\s+)+", "", line.strip())
        between = re.split(r"[\[\]{},]", item) if re.search(r"[\[{]|,\s*$", item) else []
        for each in dict.fromkeys((item, *between)):
            yield re.sub(r"""^['"]?pip['"]?\s*:\s*""", "", each.strip()).strip("'\" ")


def _take(item: str, folder: Path, seen: dict[Path, Any]) -> None:
    option = _OPTION.fullmatch(item)
    if option is None or (option[1] or option[2][0]) == "e":
        path = _package(option[3] if option else item, folder)
        if path is not None and path not in seen and _is_package(path):
            seen[path] = content_of(path)
        return
    path = _path(option[3].strip("'\" "), folder)
    if path is None or path in seen:
        return
    if (option[1] or option[2][0]) == "f":
        seen[path] = str(path)  # a place to look in, as an index is: what is there by now does not count
        return
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return
    lines = [line for _, line in requirements_file.lines(text)]
    seen[path] = lines
    for line in lines:
        _take(line, path.parent, seen)


def _package(item: str, folder: Path) -> Path | None:
    """The folder or archive that an item installs from: ``./folder[extra] ; marker``, ``name @ file:///path``."""
    place = re.split(r"\s*;\s|\s;|\s+--\w", item.strip("'\" "), maxsplit=1)[0].strip()
    if named := re.fullmatch(r"[A-Za-z0-9._-]+\s*(?:\[[^\]]*\])?\s*@\s*(.+)", place):
        place = named[1]
    elif not re.search(r"/|^\.|\.(whl|zip|tar\.gz|tgz|tar\.bz2|conda)$", place):
        return None
    return _path(re.sub(r"\[[^\[\]]*\]$", "", place), folder)


def _is_package(path: Path) -> bool:
    """Whether pip could install from it. A folder may also be a channel, which is a place to look in."""
    return path.is_file() or any(
        (path / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg")
    )


def _path(place: str, folder: Path) -> Path | None:
    """The path, absolute; None for a URL of another machine."""
    parts = urlsplit(place) if re.match(r"[a-z+]+:", place) else None
    if parts is not None and parts.scheme != "file":
        return None
    try:
        # Not resolved: where a link leads is what it holds.
        given = unquote(parts.path) if parts else os.path.expanduser(place)
        return Path(os.path.normpath(folder / given))
    except ValueError:  # a null character
        return None
