"""Requirements in one form for all their spellings, and the local folders and files that some install from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import BuildError

_BOUND = r"(?:[<>=!]=|[<>])\s*\d+(?:\.\d+)*"
_PLAIN = re.compile(
    rf"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*({_BOUND}(?:\s*,\s*{_BOUND})*)?", re.ASCII
)


def normalised(requirement: str) -> str:
    """A requirement in one form for all its spellings: packaging's, with the name as PEP 503 normalises it.

    Raises:
        BuildError: it is not a PEP 508 requirement, or names a path that is not absolute.
    """
    if not isinstance(requirement, str):
        raise BuildError(
            f"expected a requirement such as 'numpy<2'; got {requirement!r}, a {type(requirement).__name__}."
        )
    text = requirement.strip()
    # packaging is the authority, but importing it costs 40 ms in every program that asks for a built
    # environment, and nearly all requirements are of this plain kind. A test holds the two to the same
    # answers.
    if plain := _PLAIN.fullmatch(text):
        name, listed = plain.groups(default="")
        bounds = sorted(re.sub(r"\s+", "", bound) for bound in listed.split(","))
        operators = [bound.rstrip("0123456789.") for bound in bounds]
        if len(set(operators)) == len(operators):  # else some may be equal, as ==1.0 and ==1.00
            return canonical(name) + ",".join(bounds)

    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        parsed = Requirement(text)
    except InvalidRequirement as error:
        raise BuildError(
            f"expected a requirement such as 'numpy<2' or 'name @ file:///absolute/path' (PEP 508); got {requirement!r}: {error}"
        ) from None
    if parsed.url and (
        not urlsplit(parsed.url).scheme or parsed.url.startswith("file:") and not local_path(text)
    ):
        raise BuildError(
            f"expected 'name @ file:///absolute/path' for a package in a local folder or file; got {requirement!r}."
        )
    parsed.name = canonicalize_name(parsed.name)
    parsed.extras = {canonicalize_name(extra) for extra in parsed.extras}
    return str(parsed)


def canonical(name: str) -> str:
    """The name of a package as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    """The package that a normalised requirement asks for, without its extras."""
    return re.split(r"[=<>!~@\s;\[]", requirement, maxsplit=1)[0]


def local_path(requirement: str) -> Path | None:
    """The folder or file that a normalised requirement installs from, if it does."""
    url = requirement.partition("@")[2].partition(" ;")[0].strip()
    parts = urlsplit(url)
    if parts.scheme != "file" or not parts.path.startswith("/"):
        return None
    return Path(unquote(parts.path))


def content_of(path: Path) -> list[Any]:
    """Names, sizes and times of the files that a local package is built from, without what building it may leave there."""
    if not path.is_dir():
        status = path.stat() if path.exists() else None
        return [str(path), status and [status.st_size, status.st_mtime_ns]]
    files = []
    for folder, folders, names in os.walk(path):
        made = (".", "__pycache__", "build", "dist")
        folders[:] = sorted(
            name for name in folders if not name.startswith(made) and not name.endswith(".egg-info")
        )
        for name in sorted(names):
            status = os.lstat(os.path.join(folder, name))
            files.append(
                [os.path.relpath(os.path.join(folder, name), path), status.st_size, status.st_mtime_ns]
            )
    return [str(path), files]


def pinned_in(text: str) -> list[str]:
    """The requirements in a requirements file of exact versions, one a line: without comments, hashes and options."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [re.split(r"\s+--", line)[0].strip() for line in lines if line and not line.startswith("-")]
