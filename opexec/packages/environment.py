"""The environment that a package asks for: the key ``environment`` of its ``config.json``.

    "environment": {"python": "3.7", "requirements": ["tensorflow==1.15.5", "numpy<1.19"], "env_vars": {"TF_CPP_MIN_LOG_LEVEL": "2"}}

All keys are optional and mean what they mean to `opexec.Environment`. A key that is not known here is refused, not passed over: the
model would run in another environment than its author meant.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PackageError
from .json import Reader
from .names import problem_of

if TYPE_CHECKING:
    from ..environment import Environment

_LISTS = ("requirements", "constraints", "find_links", "extra_index_urls")
_KEYS = ("python", *_LISTS, "index_url", "env_vars")


@dataclass(frozen=True)
class PackageEnvironment:
    """What a package's model needs to run; `arguments` makes of it what `opexec.Environment` takes."""

    python: str | None = None
    """A version or a range (``"3.7"``, ``">=3.8,<3.12"``); None where any will do that the requirements allow."""
    requirements: tuple[str, ...] = ()
    """PEP 508 requirements."""
    constraints: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    """URLs, absolute paths, or folders of wheels in the package itself, relative to it (``"0/wheels"``)."""
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    env_vars: tuple[tuple[str, str], ...] = ()
    """Environment variables of the worker, sorted by name."""

    @classmethod
    def of(cls, environment: Environment) -> PackageEnvironment:
        """What a package says in order to run in an environment like this one."""
        variables: Mapping[str, str] = getattr(environment, "env_vars", None) or {}
        lists = {name: tuple(getattr(environment, name, ())) for name in _LISTS}
        return cls(
            python=environment.python,
            index_url=getattr(environment, "index_url", None),
            env_vars=tuple(sorted(dict(variables).items())),
            **lists,
        )

    def to_dict(self) -> dict[str, Any]:
        """The object in ``config.json``: what is said, and nothing of what is not."""
        content: dict[str, Any] = {"python": self.python, "index_url": self.index_url}
        content.update({name: list(getattr(self, name)) for name in _LISTS})
        content["env_vars"] = dict(self.env_vars)
        return {key: content[key] for key in _KEYS if content[key]}

    def arguments(self, folder: Path) -> dict[str, Any]:
        """Keyword arguments for `opexec.Environment`, without those that have their default. `folder`: the package's, unpacked."""
        content = self.to_dict()
        if self.find_links:
            content["find_links"] = [
                str(folder / link) if _is_inside(link) else link for link in self.find_links
            ]
        return content


def parse_environment(content: object, package: str, file: str) -> PackageEnvironment:
    """Check the object under the key ``environment``. Raises PackageError that names the field."""
    if not isinstance(content, dict):
        raise Reader(package, file, {}).refused("environment", "an object", content)
    reader = Reader(package, file, content, "environment.")
    for key in content:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(_KEYS)}"
            raise PackageError(
                f"there is no such key; {hint}", package=package, file=file, field=f"environment.{key}"
            )
    lists = {name: reader.texts(name) for name in _LISTS}
    for name in ("requirements", "constraints"):
        for index, requirement in enumerate(lists[name]):
            _check_requirement(reader, f"{name}[{index}]", requirement)
    for index, link in enumerate(lists["find_links"]):
        if "://" not in link and not os.path.isabs(link) and problem_of(link.rstrip("/")) is not None:
            raise reader.refused(
                f"find_links[{index}]", "a URL, an absolute path or a folder in the package", link
            )
    return PackageEnvironment(
        python=_python(reader),
        index_url=None if content.get("index_url") is None else reader.text("index_url"),
        env_vars=_variables(reader),
        **lists,
    )


def _is_inside(link: str) -> bool:
    return "://" not in link and not os.path.isabs(link)


def _python(reader: Reader) -> str | None:
    if reader.content.get("python") is None:
        return None
    python = reader.text("python") if isinstance(reader.content["python"], str) else ""
    if not python or "/" in python:
        raise reader.refused(
            "python",
            'a version or a range in quotes, such as "3.10" or ">=3.8,<3.12"',
            reader.content["python"],
        )
    return python


def _variables(reader: Reader) -> tuple[tuple[str, str], ...]:
    content = reader.content.get("env_vars") or {}
    if not isinstance(content, dict):
        raise reader.refused("env_vars", "an object of names and texts", content)
    for name, value in content.items():
        if not name or "=" in name or "\0" in name or not isinstance(value, str) or "\0" in value:
            raise reader.refused(
                f"env_vars.{name}", "a text (a name has no '=', neither has a zero byte)", value
            )
    return tuple(sorted(content.items()))


def _check_requirement(reader: Reader, key: str, requirement: str) -> None:
    from packaging.requirements import (
        InvalidRequirement,
        Requirement,
    )  # 40 ms, for those who load such a package

    try:
        Requirement(requirement)
    except InvalidRequirement:
        raise reader.refused(key, "a requirement such as 'numpy<2' (PEP 508)", requirement) from None
