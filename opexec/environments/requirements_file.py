"""Reading a ``requirements.txt``: pip's format (pip documentation, "Requirements File Format").

What pip would do for one installation, and not say of what is installed, is refused with the line's number rather than left out:
an environment that silently lacks an option of its file is another environment. Paths are relative to the file they stand in.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import BuildError
from .requirement import canonical, normalised

_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2")
_CURES = {
    "--no-index": "Set PIP_NO_INDEX=1 instead.",
    "--trusted-host": "Set PIP_TRUSTED_HOST instead.",
    "--pre": "Set UV_PRERELEASE=allow instead.",
    "--no-binary": "Set UV_NO_BINARY_PACKAGE instead.",
    "--only-binary": "Set UV_NO_BUILD_PACKAGE instead.",
    "--hash": "A file with hashes has exact versions: use Environment.from_lock, which verifies them.",
    "--require-hashes": "A file with hashes has exact versions: use Environment.from_lock, which verifies them.",
}
_SHORT = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-i": "--index-url",
    "-f": "--find-links",
    "-e": "--editable",
}
_TAKEN = {*_SHORT.values(), "--extra-index-url"}


@dataclass
class _Found:
    requirements: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    find_links: list[str] = field(default_factory=list)
    extra_index_urls: list[str] = field(default_factory=list)
    index_url: str | None = None


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of an `Environment` that a file stands for. Raises BuildError, with the file and the line."""
    found = _Found()
    _read(Path(os.path.abspath(os.path.expanduser(path))), found, found.requirements, [])
    return {name: value for name, value in vars(found).items() if value}


def check(text: str) -> None:
    """Raise BuildError, with the line, for what is refused wherever the file lies. Other files that it names are not looked for."""
    for number, line in lines(text):
        try:
            if line.startswith("-"):
                option, _ = _option(line)
                if option not in _TAKEN:
                    _refuse(option)
            else:
                requirement = _without_options(line)
                if not _is_local(requirement):
                    normalised(requirement)
        except (BuildError, ValueError) as error:
            raise BuildError(f"line {number}: {error}") from None


def local_requirement(text: str, folder: Path) -> str:
    """A package given by the path of a folder or an archive, or by a URL, as ``"name @ URL"``.

    `folder`: what the path is relative to. Extras and a marker may follow (``"./package[gpu]; python_version < '3.9'"``).

    Raises:
        BuildError: it is not there, or does not tell its name.
    """
    place, semicolon, marker = text.partition(" ;") if " ;" in text else text.partition("; ")
    match = re.fullmatch(r"(.*?)(\[[^\[\]]*\])?", place.strip())
    assert match is not None
    place, extras = match.group(1), match.group(2) or ""
    if urlsplit(place).scheme and not place.startswith("file:"):
        url = place
        name = _egg(place) or _name_of_archive(urlsplit(place).path)
    else:
        path = Path(urlsplit(place).path if place.startswith("file:") else os.path.expanduser(place))
        path = Path(os.path.normpath(folder / path))
        if not path.exists():
            raise BuildError(f"there is no {path}")
        url = path.as_uri()
        name = _name_in_folder(path) if path.is_dir() else _name_of_archive(path.name)
    if name is None:
        raise BuildError(f"it does not tell the name of its package. Write 'name @ {url}'")
    return normalised(f"{canonical(name)}{extras} @ {url}" + (f" ; {marker.strip()}" if semicolon else ""))


def _read(path: Path, found: _Found, into: list[str], above: list[Path]) -> None:
    if path in above:
        raise BuildError(f"expected {above[-1]} not to name {path}, which names it in turn.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(
            f"expected {path} to be a requirements file, but it cannot be read: {error}."
        ) from error
    for number, line in lines(text):
        try:
            _take(line, path, found, into, above)
        except BuildError as error:
            if above or str(error).startswith(f"{path}"):
                where = "" if f"{path}, line" in str(error) else f"{path}, line {number}: "
            else:
                where = f"{path}, line {number}: "
            raise BuildError(f"{where}{error}") from None


def lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, each with the number of its first: joined, without comments, variables filled in."""
    whole, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not whole:
            first = number
        comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not comment:
            whole += line[:-1] + " "
            continue
        whole += "" if comment else line
        cleaned = re.sub(r"(^|\s)#.*$", "", whole).strip()
        whole = ""
        if cleaned:
            yield first, filled_in(cleaned)
    if cleaned := re.sub(r"(^|\s)#.*$", "", whole).strip():
        yield first, filled_in(cleaned)


def filled_in(text: str) -> str:
    """The text with environment variables (``${NAME}``) replaced by their values, where they have one."""
    return re.sub(r"\$\{([A-Z0-9_]+)\}", _variable, text)


def _variable(match: re.Match[str]) -> str:
    return os.environ.get(match.group(1)) or match.group()


def _take(line: str, path: Path, found: _Found, into: list[str], above: list[Path]) -> None:
    """What one line says."""
    if not line.startswith("-"):
        into.append(_requirement(_without_options(line), path.parent))
        return
    option, value = _option(line)
    if option not in ("--requirement", "--constraint") and into is found.constraints:
        raise BuildError(f"a file of constraints cannot have the option {option}.")
    if option in ("--requirement", "--constraint"):
        target = found.constraints if option == "--constraint" else into
        if urlsplit(value).scheme:
            raise BuildError(f"cannot read {value}: only files of this machine.")
        _read(Path(os.path.normpath(path.parent / os.path.expanduser(value))), found, target, [*above, path])
    elif option == "--index-url":
        found.index_url = value
    elif option == "--extra-index-url":
        found.extra_index_urls.append(value)
    elif option == "--find-links":
        here = value if urlsplit(value).scheme else os.path.normpath(path.parent / os.path.expanduser(value))
        found.find_links.append(here)
    elif option == "--editable":
        # What a folder holds is part of what the environment is named by: a change makes a new one, so nothing is stale.
        into.append(_requirement(value, path.parent))
    else:
        _refuse(option)


def _without_options(line: str) -> str:
    """A requirement; options behind it are refused."""
    requirement, *options = re.split(r"\s+(?=--\w)", line)
    for option in options:
        _refuse(option.partition("=")[0].split()[0])
    return requirement.strip()


def _option(line: str) -> tuple[str, str]:
    """An option in its long form, and its value."""
    words = shlex.split(line)
    option, equals, value = words[0].partition("=")
    if option[:2] in _SHORT and not option.startswith("--"):  # also -rfile and -r=file
        value = option[2:] + equals + value
        option = _SHORT[option[:2]]
    rest = [value.lstrip("=")] if value else words[1:]
    if option in _TAKEN and len(rest) != 1:
        raise BuildError(f"expected one value after {option}; got {line!r}.")
    return option, rest[0] if rest else ""


def _refuse(option: str) -> None:
    raise BuildError(
        f"an environment cannot be made with the option {option}. {_CURES.get(option, 'Leave it out.')}"
    )


def _requirement(text: str, folder: Path) -> str:
    if _is_local(text):
        try:
            return local_requirement(text, folder)
        except BuildError as error:
            raise BuildError(f"{text!r}: {error}.") from None
    return normalised(text)


def _is_local(text: str) -> bool:
    """Whether a requirement is the place of a folder or an archive, without a name."""
    name, at, _ = text.partition("@")
    named = at and re.fullmatch(r"[A-Za-z0-9._-]+\s*(\[[^\]]*\])?\s*", name)
    place = re.split(r"\s*;\s|\s;", text, maxsplit=1)[0]
    return not named and ("/" in place or place.startswith(".") or place.lower().endswith(_ARCHIVES))


def _egg(url: str) -> str | None:
    match = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", url)
    return match and match.group(1)


def _name_of_archive(name: str) -> str | None:
    match = re.search(r"([^/]+?)-\d[^/]*(?:\.whl|\.zip|\.tar\.gz|\.tgz|\.tar\.bz2)$", name)
    return match and match.group(1)


def _name_in_folder(folder: Path) -> str | None:
    from .project_files import read_toml

    if (folder / "pyproject.toml").is_file():
        name = read_toml(folder / "pyproject.toml").get("project", {}).get("name")
        if isinstance(name, str):
            return name
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "setup.cfg", encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return None
    return parser.get("metadata", "name", fallback=None)
