"""The environments in the cache, and the names that users give them.

    <cache>/names/NAME.json   what was asked for under that name, and the key of the environment that was built for it

A name stands for one environment and not for a request that each program would resolve anew: a program in another Python, or
with other settings for pip, gets the interpreter that `opexec env create` made. What an environment's own folder holds is
described in `environment`; here it is only read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..credentials import without_credentials
from ..environment import Environment
from ..errors import BuildError
from ..files import caches
from . import build as environment_build
from .build_progress import reporting
from .requirement import content_of, local_path

_FORMAT = 1  # of a name's file
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
#: The files that an environment's exact versions are kept in, so that it is built with the same ones again.
LOCKS = ("requirements.lock", "conda.lock")

_KEY = "[0-9a-f]{6,}"  # or the beginning of one


@dataclass(frozen=True)
class Stored:
    """One environment in the cache."""

    key: str
    home: Path
    names: tuple[str, ...]
    complete: bool
    """False for what an interrupted build left, and for one whose interpreter is gone."""
    python: str | None
    """The version of Python it has."""
    base: Path | None
    """The interpreter that it was made from, or the conda that made it."""
    request: dict[str, Any]
    """The arguments of the `Environment` that its name stands for, or else that it was first built for: those that were given, and
    without user names and passwords in URLs."""
    created: datetime.datetime | None
    used: datetime.datetime | None
    """When it was last asked for."""

    packages: dict[str, str]
    """What is installed there: names and versions."""
    size: int | None
    """What it took on disk when it was built, in bytes."""
    passed_over: tuple[str, ...]
    """Versions of Python that would have come first, but have no versions of the packages."""

    @property
    def interpreter(self) -> Path:
        return environment_build.python_in(self.home)

    @property
    def lock(self) -> Path | None:
        """The file of its exact versions; pip's where both pip and conda have one."""
        return next((path for path in map(self.home.joinpath, LOCKS) if path.is_file()), None)

    @property
    def called(self) -> str:
        """Its names, or else its key."""
        return ", ".join(self.names) or self.key


@dataclass(frozen=True)
class Name:
    """What a name's file says."""

    name: str
    request: dict[str, Any]
    key: str
    python: str
    """The version of Python that was chosen."""
    base: Path
    """The interpreter that was chosen."""
    files: str | None = None
    """`files_of` the request then."""

    @property
    def home(self) -> Path:
        return _homes() / self.key

    @property
    def public_request(self) -> dict[str, Any]:
        """The request without user names and passwords in URLs."""
        return {argument: _public(value) for argument, value in self.request.items()}


class NamedEnvironment(Environment):
    """The environment that a name stands for.

    `resolve` gives the interpreter that was built for the name, without looking at indexes, settings or the files that it was made
    from: they need not be there any more. Should it be gone from the cache, it is built again with the same interpreter and, as long
    as its lock is there, the same versions.
    """

    _name: Name

    def __init__(self, name: Name) -> None:
        request = dict(name.request)
        if "conda" not in request:  # such a file says all of it
            if (lock := name.home / "requirements.lock").is_file():
                request = {
                    key: value for key, value in request.items() if key not in ("requirements", "constraints")
                }
                request["lock"] = lock
            # The interpreter of the first time, also where the caller's own was meant; another of its line if it is gone.
            line = ".".join(name.python.split(".")[:2])
            request["python"] = name.base if name.base.exists() else line
        files = {argument: request.pop(argument) for argument in ("lock", "conda") if argument in request}
        super().__init__(**request)
        for argument, path in files.items():  # past the check that they are there
            object.__setattr__(self, argument, str(path))
        object.__setattr__(self, "_name", name)

    def __str__(self) -> str:
        return f"{self._name.name!r}"

    def resolve(self, progress: Callable[[str], None] | None = None) -> Path:
        stored = look(self._name.home)
        if stored is not None and stored.complete:
            caches.touch(stored.home / "used")
            return stored.interpreter
        if self.conda and (self._name.home / "conda.lock").is_file():
            from . import conda as environment_conda

            with reporting(f"environment {self}", progress) as report:
                return environment_conda.rebuild(self, self._name.home, report)
        python = super().resolve(progress)
        name = save(self._name.name, self._name.request, python)
        if (
            not self.conda and name.files != self._name.files
        ):  # it was built from its lock, not from the files as they are now
            _keep(dataclasses.replace(name, files=self._name.files))
        return python


# Names


def check_name(name: str) -> str:
    """The name itself. Raises BuildError if it cannot be one."""
    if not _NAME.fullmatch(name):
        raise BuildError(
            f"expected a name of letters, digits, '.', '_' and '-' that begins with a letter or a digit, "
            f"of at most 100 characters; got {name!r}."
        )
    return name


def named(name: str) -> NamedEnvironment:
    """The environment of that name.

    Raises:
        BuildError: there is none; the message lists the names there are, and those that are spelled alike.
    """
    return NamedEnvironment(find_name(name))


def find_name(name: str) -> Name:
    """What is kept of a name. Raises BuildError as `named`."""
    if found := _read_name(check_name(name)):
        return found
    raise BuildError(
        f"there is no environment named {name!r}. {_suggestion(name, [each.name for each in names()])}"
    )


def names() -> list[Name]:
    """All of them, in the order of the alphabet."""
    try:
        files = sorted(os.listdir(_names_folder()))
    except OSError:
        return []
    read = (_read_name(file.removesuffix(".json")) for file in files if file.endswith(".json"))
    return [name for name in read if name is not None]


def resolve(text: str) -> Path:
    """The interpreter of the environment with that name, which is built if need be, or with that key, which must be there.

    Raises:
        BuildError: as `named`, `find` and `Environment.resolve`.
    """
    if _read_name(text) is None and re.fullmatch(_KEY, text):
        return find(text).interpreter
    return named(text).resolve()


def save(name: str, request: dict[str, Any], interpreter: Path) -> Name:
    """Give a built environment a name, which may have stood for another one before.

    Args:
        request: from `Environment.request`.
        interpreter: what `Environment.resolve` gave for it.

    Raises:
        BuildError: the name cannot be one, or the cache cannot be written to.
    """
    home = interpreter.parents[2]
    stored = look(home)
    if stored is None or stored.python is None or stored.base is None:
        raise BuildError(
            f"expected {interpreter} to be in an environment that opexec built; {home} does not describe one."
        )
    found = Name(check_name(name), request, stored.key, stored.python, stored.base, files_of(request))
    _keep(found)
    return found


def files_of(request: dict[str, Any]) -> str | None:
    """A digest of what the files say that a request names: a lock, a conda file, local packages. None where it names none, or one
    cannot be read.
    """
    said: list[Any] = []
    try:
        if lock := request.get("lock"):
            said.append(Path(lock).read_text(encoding="utf-8"))
        if conda := request.get("conda"):
            from . import conda as environment_conda

            said.append(environment_conda.key(Path(conda)))
    except (OSError, UnicodeDecodeError, BuildError):
        return None
    said += [content_of(path) for item in request.get("requirements", ()) if (path := local_path(item))]
    return caches.digest(said) if said else None


def forget(name: str) -> None:
    """Remove a name; the environment stays. Raises BuildError as `named`."""
    find_name(name)
    _name_file(name).unlink(missing_ok=True)


# Environments


def stored() -> list[Stored]:
    """All environments in the cache, built or half-built: those with names first, then the one used last."""
    names_of: dict[str, list[Name]] = {}
    for name in names():
        names_of.setdefault(name.key, []).append(name)
    try:
        keys = sorted(path.name for path in _homes().iterdir() if path.is_dir())
    except OSError:
        keys = []
    found = [look(_homes() / key, names_of.get(key, ())) for key in keys]
    return sorted(
        (each for each in found if each is not None),
        key=lambda each: (not each.names, each.names, -(each.used.timestamp() if each.used else 0)),
    )


def find(text: str) -> Stored:
    """The environment of that name, or of a key that begins so (at least six digits of it).

    Raises:
        BuildError: there is none, more than one, or the name's environment is gone from the cache.
    """
    everything = stored()
    if re.fullmatch(_KEY, text) and _read_name(text) is None:
        matching = [each for each in everything if each.key.startswith(text)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            keys = ", ".join(each.key for each in matching)
            raise BuildError(
                f"more than one environment has a key that begins with {text}: {keys}. Give more of it."
            )
    name = find_name(text)
    if (its_own := look(name.home, [name])) is not None:
        others = next(each.names for each in everything if each.key == name.key)
        return dataclasses.replace(its_own, names=others)
    raise BuildError(
        f"the environment {text!r} is not in the cache at the moment. `opexec env path {text}` builds it again, as does using it."
    )


def look(home: Path, its_names: Sequence[Name] = ()) -> Stored | None:
    """What a folder holds; None where it is none, or holds no more than the versions of an environment that was removed."""
    try:
        inside = set(os.listdir(home))
    except OSError:
        return None
    if inside <= {*LOCKS, "used"}:
        return None
    summary = caches.read_json(home / "complete.json")
    told = summary if isinstance(summary, dict) else {}
    made_with = told.get("made_with", {})
    created = told.get("created")
    packages = told.get("packages")
    return Stored(
        key=home.name,
        home=home,
        names=tuple(name.name for name in its_names),
        complete=bool(told) and environment_build.is_complete(home),
        python=made_with.get("version"),
        base=Path(made_with["path"]) if made_with else None,
        request=its_names[0].public_request if its_names else told.get("requested", {}),
        created=datetime.datetime.fromisoformat(created) if created else None,
        used=_last_use(home),
        packages=packages if isinstance(packages, dict) else {},
        size=told.get("size"),
        passed_over=tuple(told.get("passed_over", ())),
    )


def _last_use(home: Path) -> datetime.datetime | None:
    for path in (home / "used", home / "complete.json"):
        with contextlib.suppress(OSError):
            return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc)
    return None


def _public(value: Any) -> Any:
    if isinstance(value, list):
        return [_public(each) for each in value]
    return without_credentials(value) if isinstance(value, str) else value


def _homes() -> Path:
    return caches.root() / "environments"


# The files of names


def _names_folder() -> Path:
    return caches.root() / "names"


def _name_file(name: str) -> Path:
    return _names_folder() / f"{name}.json"


def _read_name(name: str) -> Name | None:
    kept = caches.read_json(_name_file(name))
    try:
        if kept["format"] != _FORMAT:
            return None
        python = kept["python"]
        return Name(
            name,
            dict(kept["request"]),
            str(kept["key"]),
            str(python["version"]),
            Path(python["path"]),
            kept.get("files"),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _keep(name: Name) -> None:
    caches.folder("names")
    entry = {
        "format": _FORMAT,
        "key": name.key,
        "python": {"version": name.python, "path": str(name.base)},
        "request": name.request,
        "files": name.files,
    }
    caches.write_json(_name_file(name.name), entry)


def _suggestion(name: str, known: list[str]) -> str:
    if not known:
        return f"None has a name yet: opexec env create {name} REQUIREMENT..."
    text = f"There are: {', '.join(known)}."
    if near := difflib.get_close_matches(name, known, n=3, cutoff=0.6):
        text = f"Did you mean {' or '.join(near)}? {text}"
    return text
