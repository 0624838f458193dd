"""What a ``pyproject.toml`` (PEP 621, PEP 735) or a script with inline metadata (PEP 723) asks for.

Of uv's own table, ``[tool.uv]``, is followed what says where packages come from: sources by path, URL or git, indexes,
find-links and constraints. What else there would change what is installed is refused by name.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import BuildError
from .requirement import canonical, name_of, normalised
from .requirements_file import local_requirement

# PEP 723's own expression.
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_REFUSED = (
    "override-dependencies",
    "exclude-dependencies",
    "no-index",
    "prerelease",
    "resolution",
    "no-binary-package",
)


def read_pyproject(
    path: str | os.PathLike[str], extras: Iterable[str] = (), groups: Iterable[str] = ()
) -> dict[str, Any]:
    """The arguments of an `Environment` that the file stands for. Raises BuildError."""
    file = Path(os.path.abspath(os.path.expanduser(path)))
    if file.is_dir():
        file = file / "pyproject.toml"
    content = read_toml(file)
    project = content.get("project", {})
    extras = [canonical(extra) for extra in extras]
    dynamic = project.get("dynamic", [])
    for name in ("dependencies", *(["optional-dependencies"] if extras else [])):
        if name in dynamic:
            raise BuildError(
                f"expected {file} to list its {name}; they are dynamic, known to its build backend alone. "
                f"Install the project instead: Environment(requirements=['{project.get('name', 'name')} @ {file.parent.as_uri()}'])."
            )
    requirements = [*_texts(project.get("dependencies", []), file)]
    requirements += _of_extras(project, extras, file)
    requirements += _of_groups(content.get("dependency-groups", {}), groups, file)
    return _arguments(requirements, project.get("requires-python"), content, file)


def read_script(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of an `Environment` that a script's metadata stands for. Raises BuildError."""
    file = Path(os.path.abspath(os.path.expanduser(path)))
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"expected {file} to be a Python script, but it cannot be read: {error}.") from error
    blocks = [match for match in _BLOCK.finditer(text) if match.group("type") == "script"]
    if len(blocks) != 1:
        raise BuildError(
            f"expected {file} to have one block of inline script metadata (PEP 723), from '# /// script' to '# ///'; "
            f"it has {len(blocks) or 'none'}."
        )
    lines = blocks[0].group("content").splitlines()
    content = _parse("\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines), file)
    return _arguments(
        _texts(content.get("dependencies", []), file), content.get("requires-python"), content, file
    )


def read_toml(path: Path) -> dict[str, Any]:
    """Raises BuildError: it cannot be read, or is no TOML."""
    try:
        return _parse(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"expected {path} to be a TOML file, but it cannot be read: {error}.") from error


def _parse(text: str, file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # novermin: guarded by the line above
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"expected TOML in {file}, but: {error}.") from error


def _texts(listed: object, file: Path) -> list[str]:
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise BuildError(f"expected the dependencies in {file} to be a list of texts; got {listed!r}.")
    return listed


def _arguments(listed: list[str], python: object, content: dict[str, Any], file: Path) -> dict[str, Any]:
    uv = content.get("tool", {}).get("uv", {})
    for name in _REFUSED:
        if uv.get(name):
            raise BuildError(f"an environment cannot be made with tool.uv.{name} of {file}. Leave it out.")
    sources = {canonical(name): source for name, source in uv.get("sources", {}).items()}
    try:
        requirements = [_sourced(normalised(item), sources, file) for item in listed]
    except BuildError as error:
        raise BuildError(f"{file}: {error}") from None
    arguments: dict[str, Any] = {"requirements": requirements, "python": python}
    arguments["constraints"] = uv.get("constraint-dependencies", [])
    links = uv.get("find-links", [])
    arguments["find_links"] = [link if "://" in link else str(file.parent / link) for link in links]
    indexes = [index for index in uv.get("index", []) if not index.get("explicit")]
    default = [index["url"] for index in indexes if index.get("default")] or [uv.get("index-url")]
    arguments["index_url"] = default[0]
    arguments["extra_index_urls"] = [index["url"] for index in indexes if not index.get("default")]
    arguments["extra_index_urls"] += uv.get("extra-index-url", [])
    return {name: value for name, value in arguments.items() if value}


def _sourced(requirement: str, sources: dict[str, Any], file: Path) -> str:
    """A requirement with the place that tool.uv.sources gives for it, if it does."""
    source = sources.get(name_of(requirement))
    if source is None:
        return requirement
    head, semicolon, marker = requirement.partition(";")
    match = re.match(r"[^\[=<>!~@\s]+(\[[^\]]*\])?", head)
    assert match is not None
    named, tail = match.group(), f" ; {marker.strip()}" if semicolon else ""
    keys = set(source) if isinstance(source, dict) else set()
    if keys and keys <= {"path", "editable", "package"}:
        found = local_requirement(source["path"], file.parent)
        return normalised(f"{named} @ {found.partition('@')[2].strip()}{tail}")
    if keys == {"url"}:
        return normalised(f"{named} @ {source['url']}{tail}")
    if "git" in keys and keys <= {"git", "rev", "tag", "branch", "subdirectory"}:
        reference = source.get("rev") or source.get("tag") or source.get("branch")
        url = f"git+{source['git'].removeprefix('git+')}" + (f"@{reference}" if reference else "")
        folder = f"#subdirectory={source['subdirectory']}" if "subdirectory" in keys else ""
        return normalised(f"{named} @ {url}{folder}{tail}")
    raise BuildError(
        f"an environment cannot be made with the source of {name_of(requirement)!r} in tool.uv.sources, {source!r}. "
        "Path, url and git can be followed; give the requirements to Environment directly."
    )


def _of_extras(project: dict[str, Any], extras: list[str], file: Path) -> Iterator[str]:
    """The requirements of extras; one that names extras of the project itself stands for theirs."""
    table = {canonical(name): items for name, items in project.get("optional-dependencies", {}).items()}
    own = canonical(project.get("name", ""))
    waiting, done = list(extras), set[str]()
    while waiting:
        extra = waiting.pop(0)
        if extra in done:
            continue
        done.add(extra)
        if extra not in table:
            raise BuildError(f"{file} has no extra {extra!r}. It has: {', '.join(sorted(table)) or 'none'}.")
        for item in table[extra]:
            match = re.fullmatch(r"([^\[]+)\[([^\]]*)\]", item.strip())
            if match and own and canonical(match.group(1).strip()) == own:
                waiting += [canonical(each.strip()) for each in match.group(2).split(",")]
            else:
                yield item


def _of_groups(
    table: dict[str, Any], groups: Iterable[str], file: Path, above: tuple[str, ...] = ()
) -> Iterator[str]:
    """The requirements of dependency groups, with those of the groups they include."""
    named = {canonical(name): items for name, items in table.items()}
    for group in map(canonical, groups):
        if group not in named:
            raise BuildError(
                f"{file} has no dependency group {group!r}. It has: {', '.join(sorted(named)) or 'none'}."
            )
        if group in above:
            raise BuildError(f"the dependency group {group!r} in {file} includes itself.")
        for item in named[group]:
            if isinstance(item, str):
                yield item
            elif isinstance(item, dict) and set(item) == {"include-group"}:
                yield from _of_groups(table, [item["include-group"]], file, (*above, group))
            else:
                raise BuildError(
                    f"expected a requirement or {{include-group = ...}} in the group {group!r} of {file}; got {item!r}."
                )
