"""Environments: an interpreter with packages, named by what it must have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .credentials import without_credentials
from .environments import interpreter_search
from .environments import request as environment_request
from .environments.build_progress import reporting
from .environments.requirement import normalised
from .errors import BuildError

_Path = str | os.PathLike[str]


class Variables(Mapping[str, str]):
    """Environment variables that do not change: a mapping that can be a part of a hashable value."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str]) -> None:
        self._items = tuple(sorted(items.items()))

    def __getitem__(self, name: str) -> str:
        return dict(self._items)[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return repr(dict(self._items))


@dataclass(frozen=True, init=False, repr=False)
class Environment:
    """An interpreter with packages, by what it must have; equal requests share one environment in the cache.

    numpy is always installed, because a worker needs it; its version is whatever the requirements allow.

    Args:
        python: a version (``"3.7"``, ``"3.7.16"``), a range (``">=3.8,<3.12"``), or the path of an interpreter, venv or conda folder
            (a new venv is made from it, it is never written to). None: the interpreter of the caller if the requirements can be
            had there, else the newest one found for which they can, else the newest that uv can download for which they can. A
            range: likewise, from the newest one found that is in it.
        requirements: PEP 508 requirements. A package in a local folder or wheel is ``"name @ file:///absolute/path"``.
            Order, case and white space do not matter.
        constraints: bounds on packages that something else asks for, in the same form.
        find_links: folders, or URLs of pages, with packages, looked into beside the indexes.
        index_url: the package index to use in place of PyPI and of what pip's and uv's settings say.
        extra_index_urls: further indexes. As with pip, the best version that any of them has is taken.
        env_vars: environment variables of the workers that run there. They do not change what is installed.
        lock: the path of a file of exact versions (`requirements.lock`), which is installed as it stands: nothing is chosen,
            nothing added, and `requirements` and `constraints` are only checked against it. With `python` None one that opexec wrote names the Python it was made for.
        conda: the path of a conda ``environment.yml``; see `from_conda`.

    Raises:
        BuildError: an argument is not of these forms, or some of them do not go together.
    """

    python: str | None
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    find_links: tuple[str, ...]
    index_url: str | None
    extra_index_urls: tuple[str, ...]
    env_vars: Variables
    lock: str | None
    conda: str | None

    def __init__(
        self,
        python: _Path | None = None,
        requirements: Iterable[str] = (),
        constraints: Iterable[str] = (),
        find_links: Iterable[_Path] = (),
        index_url: str | None = None,
        extra_index_urls: Iterable[str] = (),
        env_vars: Mapping[str, str] | None = None,
        lock: _Path | None = None,
        conda: _Path | None = None,
    ) -> None:
        values = {
            "python": _python(python),
            "requirements": _requirements("requirements", requirements),
            "constraints": _requirements("constraints", constraints),
            "find_links": tuple(map(_find_link, _listed("find_links", find_links))),
            "index_url": None if index_url is None else _index("index_url", index_url),
            "extra_index_urls": tuple(
                _index("extra_index_urls", url) for url in _listed("extra_index_urls", extra_index_urls)
            ),
            "env_vars": _variables(env_vars),
            "lock": _file("lock", lock),
            "conda": _file("conda", conda),
        }
        others = [
            name for name in values if name not in ("conda", "env_vars") and values[name] not in (None, ())
        ]
        if conda is not None and others:
            raise BuildError(
                f"expected conda={values['conda']!r} alone, because the file says all there is to install; "
                f"got {' and '.join(others)} too. Put that into the file, or leave conda out."
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_requirements(cls, path: _Path, **changes: Any) -> Environment:
        """What a ``requirements.txt`` asks for: its requirements, and those of the files it names with ``-r``, constraints
        (``-c``), indexes and find-links. Local packages may be given by path, relative to the file.

        `changes`: arguments of `Environment`, instead of what the file says: ``python="3.8"``.

        Raises:
            BuildError: the file cannot be read, or has something in it that this cannot do, with the line's number.
        """
        from .environments import requirements_file

        return cls(**{**requirements_file.read(path), **changes})

    @classmethod
    def from_pyproject(
        cls, path: _Path, extras: Iterable[str] = (), groups: Iterable[str] = (), **changes: Any
    ) -> Environment:
        """What a ``pyproject.toml`` asks for: ``project.dependencies`` and ``requires-python``, with the named
        ``optional-dependencies`` and the named ``dependency-groups`` (PEP 735). The project itself is not installed.

        `path`: of the file, or of the folder it is in. `changes`: as in `from_requirements`.

        Raises:
            BuildError: the file cannot be read, has no such extra or group, or leaves its dependencies to a build backend.
        """
        from .environments import project_files

        extras, groups = _listed("extras", extras), _listed("groups", groups)
        return cls(**{**project_files.read_pyproject(path, extras, groups), **changes})

    @classmethod
    def from_script(cls, path: _Path, **changes: Any) -> Environment:
        """What a script asks for in its head (inline script metadata, PEP 723): ``dependencies`` and ``requires-python``.

        `changes`: as in `from_requirements`.

        Raises:
            BuildError: the file cannot be read, or has no such block.
        """
        from .environments import project_files

        return cls(**{**project_files.read_script(path), **changes})

    @classmethod
    def from_lock(cls, path: _Path, **changes: Any) -> Environment:
        """Exactly the versions in a ``requirements.lock``, as opexec keeps one for every environment, or as ``uv pip compile`` or
        ``pip freeze`` writes it. One that opexec wrote names its Python; for others it is found as by ``python=None``.

        `changes`: as in `from_requirements`.
        """
        return cls(**{"lock": path, **changes})

    @classmethod
    def from_conda(cls, path: _Path, **changes: Any) -> Environment:
        """What a conda ``environment.yml`` asks for, installed by the user's own micromamba, mamba or conda.

        numpy must be in it. Of what activating it would set, workers get nothing: name variables in `env_vars`.

        `changes`: only `env_vars` goes together with such a file.
        """
        return cls(**{"conda": path, **changes})

    def __str__(self) -> str:
        if self.conda:
            return f"of {self.conda}"
        python = "Python" if self.python is None else f"Python {self.python}"
        packages = f"the versions in {self.lock}" if self.lock else ", ".join(self.requirements) or "numpy"
        return without_credentials(f"{python} with {packages}")

    def __repr__(self) -> str:
        """The arguments that were given, without what is secret or may be: credentials in URLs, values of environment variables."""
        shown = {**self.request(), "env_vars": dict.fromkeys(self.env_vars, "...")}
        words = (f"{name}={value!r}" for name, value in shown.items() if value)
        return f"{type(self).__name__}({without_credentials(', '.join(words))})"

    def request(self) -> dict[str, Any]:
        """The arguments that make an equal environment, as JSON takes them: ``Environment(**request)``. Without those not given."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        given["env_vars"] = dict(self.env_vars)
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value
        }

    def resolve(self, progress: Callable[[str], None] | None = None) -> Path:
        """The interpreter of the environment, which is built if the cache does not have it.

        A built one is found without running or downloading anything. While one is built, progress goes to standard error, or to
        `progress`, a step a call. A second thread or process that asks for the same environment waits and then shares it.

        Raises:
            BuildError: no interpreter fits, the requirements cannot be installed together (with uv's explanation), or the cache
                cannot be written to.
        """
        with reporting(f"environment {self}", progress) as report:
            return environment_request.resolve(self, report)


def _python(python: _Path | None) -> str | None:
    if not isinstance(python, (str, os.PathLike, type(None))):
        raise BuildError(
            f"expected python to be text such as '3.10', or None; got {python!r}, a {type(python).__name__}. "
            "Write it in quotes: as a number, 3.10 is 3.1."
        )
    return None if python is None else interpreter_search.check_request(os.fspath(python))


def _requirements(argument: str, items: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({normalised(item) for item in _listed(argument, items)}))


def _listed(argument: str, items: Iterable[Any]) -> list[Any]:
    if isinstance(items, (str, bytes, os.PathLike)):
        raise BuildError(f"expected a list of {argument}; got the text {items!r}. Write [{items!r}].")
    try:
        return list(items)
    except TypeError:
        raise BuildError(f"expected a list of {argument}; got {items!r}, a {type(items).__name__}.") from None


def _find_link(link: _Path) -> str:
    if not isinstance(link, (str, os.PathLike)) or not os.fspath(link).strip():
        raise BuildError(f"expected a folder or a URL in find_links; got {link!r}.")
    text = os.fspath(link).strip()
    if urlsplit(text).scheme:
        return text
    return os.path.abspath(os.path.expanduser(text))


def _index(argument: str, url: str) -> str:
    text = url.strip() if isinstance(url, str) else ""
    if urlsplit(text).scheme not in ("http", "https", "file") or any(map(str.isspace, text)):
        raise BuildError(
            f"expected {argument} to be the URL of a package index (https://..., file:///...); got {url!r}."
        )
    return text


def _variables(given: Mapping[str, str] | None) -> Variables:
    if given is None:
        return Variables({})
    if not isinstance(given, Mapping):
        raise BuildError(
            f"expected env_vars to be a mapping such as {{'NAME': 'value'}}; got {given!r}, a {type(given).__name__}."
        )
    for name, value in given.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise BuildError(
                f"expected the name of an environment variable in env_vars; got {name!r}. Names are text without '='."
            )
        if not isinstance(value, str) or "\0" in value:
            raise BuildError(
                f"expected env_vars[{name!r}] to be text; got {value!r}, a {type(value).__name__}. Write it in quotes."
            )
    return Variables(given)


def _file(argument: str, path: _Path | None) -> str | None:
    if path is None:
        return None
    if not isinstance(path, (str, os.PathLike)):
        raise BuildError(
            f"expected {argument} to be the path of a file; got {path!r}, a {type(path).__name__}."
        )
    given = os.path.abspath(os.path.expanduser(os.fspath(path)))
    if not os.path.isfile(given):
        raise BuildError(
            f"expected {argument} to be the path of a file; there is none at {given}. Check the path."
        )
    return given
