"""Environments: from a Python version and requirements to the path of an interpreter that has them.

An environment is a venv made by uv in the cache, in a folder named by a digest of everything that decides what it holds:

    <cache>/environments/<key>/venv/               the venv itself
    <cache>/environments/<key>/requirements.lock   the exact versions, kept so that a rebuild gives the same ones
    <cache>/environments/<key>/complete.json       written last; without it the rest counts for nothing
    <cache>/environments/<key>/building/           uv's input and output, only while it is built
    <cache>/environments/<key>.lock                locked by whoever builds

It is built where it will stay, not moved there when done: a venv's scripts, its activation files and what
packages record of their prefix hold its absolute path, and a moved one is right only as far as every package
allows. That nobody uses a half-built one is up to ``complete.json`` instead: it appears in one step, after
everything else. What a killed builder left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from . import caches, installer, interpreter_search
from .build_progress import UvLog, reporting
from .errors import BuildError
from .interpreters import Interpreter, probe

_FORMAT = 1  # of an environment's folder; a new number leaves old ones unused


@dataclass(frozen=True, init=False)
class Environment:
    """An interpreter with packages, by what it must have; equal requests share one environment in the cache.

    numpy is always installed, because a worker needs it; its version is whatever the requirements allow.

    Args:
        python: a version (``"3.7"``, ``"3.7.16"``), a range (``">=3.8,<3.12"``), the path of an interpreter, venv or conda folder
            (a new venv is made from it, it is never written to), or None for the interpreter of the caller.
        requirements: PEP 508 requirements. A package in a local folder or wheel is ``"name @ file:///absolute/path"``.
            Order, case and white space do not matter.

    Raises:
        BuildError: `python` or a requirement is not of these forms.
    """

    python: str | None
    requirements: tuple[str, ...]

    def __init__(
        self, python: str | os.PathLike[str] | None = None, requirements: Iterable[str] = ()
    ) -> None:
        if not isinstance(python, (str, os.PathLike, type(None))):
            raise BuildError(
                f"expected python to be text such as '3.10', or None; got {python!r}, a {type(python).__name__}. "
                "Write it in quotes: as a number, 3.10 is 3.1."
            )
        if isinstance(requirements, str):
            raise BuildError(
                f"expected a list of requirements; got the text {requirements!r}. Write [{requirements!r}]."
            )
        checked = None if python is None else interpreter_search.check_request(os.fspath(python))
        object.__setattr__(self, "python", checked)
        object.__setattr__(self, "requirements", tuple(sorted({normalised(item) for item in requirements})))

    def __str__(self) -> str:
        python = "the caller's Python" if self.python is None else f"Python {self.python}"
        return f"{python} with {', '.join(self.requirements) or 'numpy'}"

    def resolve(self, progress: Callable[[str], None] | None = None) -> Path:
        """The interpreter of the environment, which is built if the cache does not have it.

        A built one is found without running or downloading anything. While one is built, progress goes to standard error, or to
        `progress`, a step a call. A second thread or process that asks for the same environment waits and then shares it.

        Raises:
            BuildError: no interpreter fits, the requirements cannot be installed together (with uv's explanation), or the cache
                cannot be written to.
        """
        with reporting(f"environment {self}", progress) as report:
            base = self._base(report)
            settings = installer.settings()
            home = caches.folder("environments") / caches.digest(self._identity(base, settings))
            if not _is_complete(home):
                with caches.locked(
                    home.with_suffix(".lock"), lambda holder: report(f"waiting for {holder}, which builds it")
                ) as lock:
                    if not _is_complete(home):
                        _Build(self, base, settings, home, lock, report).run()
            return _python_in(home)

    def _base(self, report: Callable[[str], None]) -> Interpreter:
        if self.python is None:
            return interpreter_search.calling()
        return interpreter_search.base_of(interpreter_search.find(self.python, report))

    def _identity(self, base: Interpreter, settings: installer.Settings) -> dict[str, Any]:
        """Everything that decides what the environment holds."""
        return {
            "format": _FORMAT,
            "requirements": self.requirements,
            "local": [_content_of(path) for item in self.requirements if (path := _local_path(item))],
            "interpreter": [os.path.realpath(base.path), base.version, base.build, base.soabi, base.platform],
            "uv": installer.fingerprint(settings),
        }


@dataclass(frozen=True)
class _Build:
    """One building of one environment, by the holder of its lock."""

    environment: Environment
    base: Interpreter
    settings: installer.Settings
    home: Path
    lock: int
    report: Callable[[str], None]

    def run(self) -> None:
        """Raises BuildError, and then leaves nothing but an earlier build's lock file."""
        began = time.monotonic()
        marker, pinned, work = (
            self.home / name for name in ("complete.json", "requirements.lock", "building")
        )
        try:
            marker.unlink(missing_ok=True)  # there is one where a finished venv was damaged
            self._discard()
            work.mkdir(parents=True)
            # uv looks for a project's configuration here and in all folders above. The first file it meets ends the search.
            (work / "uv.toml").write_text("# No project's settings apply here.\n", encoding="utf-8")
            resolved = pinned.read_text(encoding="utf-8") if pinned.is_file() else self._resolve(work)
            packages = _names(resolved)
            self.report(f"installing {_counted(packages)}")
            self._install(work, resolved)
            if probe(_python_in(self.home)).numpy is None:
                raise BuildError(
                    f"expected numpy in the environment {self.environment}, but what was installed has none."
                )
            caches.remove(work)
            seconds = time.monotonic() - began
            caches.write_text(pinned, resolved)
            caches.write_json(marker, self._summary(len(packages), seconds))
        except BaseException as error:
            self._discard()
            with contextlib.suppress(OSError):  # it holds the lock file of an earlier build
                self.home.rmdir()
            if isinstance(error, installer.UvFailed):
                raise BuildError(self._explain(str(error), pinned)) from None
            if isinstance(error, OSError):
                raise BuildError(
                    f"cannot build the environment {self.environment} in {self.home}: {error}"
                ) from error
            raise
        self.report(f"ready in {seconds:.1f} s: Python {self.base.version}, {_counted(packages)}")

    def _summary(self, packages: int, seconds: float) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "requested": {"python": self.environment.python, "requirements": self.environment.requirements},
            "made_with": {
                "path": str(self.base.path),
                "version": self.base.version,
                "platform": self.base.platform,
            },
            "packages": packages,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
        }

    def _resolve(self, work: Path) -> str:
        """The exact versions of all packages, as a requirements file."""
        self.report(f"choosing versions for {self.base}")
        resolved = self._pin(work, self.environment.requirements)
        if "numpy" not in _names(resolved):
            # Only now, when nothing asks for numpy. Asked for from the start, the newest numpy could be
            # preferred to the newest version of a package that wants an older one.
            resolved = self._pin(work, [*self.environment.requirements, "numpy"])
        return f"# {self.environment}\n# {self.base.implementation} {self.base.version}, {self.base.platform}\n{resolved}"

    def _pin(self, work: Path, requirements: Iterable[str]) -> str:
        wanted, chosen = work / "requirements.in", work / "chosen.txt"
        wanted.write_text("".join(f"{item}\n" for item in requirements), encoding="utf-8")
        chosen.unlink(missing_ok=True)  # uv would prefer the versions in it
        options = ["--no-header", "--no-annotate", *self.settings.pip_options, *self._refreshed()]
        self._uv(
            work, "pip", "compile", wanted, "--output-file", chosen, "--python", self.base.path, *options
        )
        return chosen.read_text(encoding="utf-8")

    def _install(self, work: Path, resolved: str) -> None:
        exact = work / "exact.txt"
        exact.write_text(resolved, encoding="utf-8")
        self._uv(work, "venv", "--no-project", "--python", self.base.path, self.home / "venv")
        # Compiled here, once: where PYTHONDONTWRITEBYTECODE is set, every start of a worker would compile it all again.
        options = ["--no-deps", "--compile-bytecode", *self.settings.pip_options, *self._refreshed()]
        self._uv(work, "pip", "install", "-r", exact, "--python", _python_in(self.home), *options)

    def _refreshed(self) -> list[str]:
        """Options that have uv build packages in local folders anew: its cache does not look at every file of a folder."""
        local = [
            item.partition("@")[0].partition("[")[0].strip()
            for item in self.environment.requirements
            if _local_path(item)
        ]
        return [option for name in local for option in ("--refresh-package", name)]

    def _uv(self, work: Path, *arguments: str | Path) -> None:
        # The lock goes along: if this process is killed, it is held until uv has stopped writing.
        installer.run(
            ["--project", str(work), *map(str, arguments)],
            self.settings.variables,
            on_line=UvLog(self.report),
            keep_open=[self.lock],
        )

    def _discard(self) -> None:
        """Remove a venv that is not complete, and what was needed to build it."""
        for name in ("building", "venv"):
            caches.remove(self.home / name)

    def _explain(self, words: str, pinned: Path) -> str:
        lines = [f"cannot build the environment {self.environment}", f"from {self.base}. uv says:"]
        lines += [f"  {line}" for line in words.splitlines()]
        if sources := installer.fingerprint(self.settings):
            lines.append(
                "It looked where uv's and pip's settings say: "
                + ", ".join(f"{k}={v}" for k, v in sources.items())
            )
        if pinned.is_file():
            lines.append(f"The versions are those of an earlier build; delete {pinned} to choose them anew.")
        else:
            lines.append("Change the requirements, or ask for another Python.")
        return "\n".join(lines)


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
            return re.sub(r"[-_.]+", "-", name).lower() + ",".join(bounds)

    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        parsed = Requirement(text)
    except InvalidRequirement as error:
        raise BuildError(
            f"expected a requirement such as 'numpy<2' or 'name @ file:///absolute/path' (PEP 508); got {requirement!r}: {error}"
        ) from None
    if parsed.url and (
        not urlsplit(parsed.url).scheme or parsed.url.startswith("file:") and not _local_path(text)
    ):
        raise BuildError(
            f"expected 'name @ file:///absolute/path' for a package in a local folder or file; got {requirement!r}."
        )
    parsed.name = canonicalize_name(parsed.name)
    parsed.extras = {canonicalize_name(extra) for extra in parsed.extras}
    return str(parsed)


def _local_path(requirement: str) -> Path | None:
    """The folder or file that a normalised requirement installs from, if it does."""
    url = requirement.partition("@")[2].partition(" ;")[0].strip()
    parts = urlsplit(url)
    if parts.scheme != "file" or not parts.path.startswith("/"):
        return None
    return Path(unquote(parts.path))


def _content_of(path: Path) -> list[Any]:
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


def _names(resolved: str) -> list[str]:
    """The packages in what `uv pip compile` wrote, one a line, comments apart."""
    lines = (line.strip() for line in resolved.splitlines())
    return [
        re.split(r"[=@\s;\[]", line, maxsplit=1)[0] for line in lines if line and not line.startswith("#")
    ]


def _counted(packages: list[str]) -> str:
    return f"{len(packages)} package{'s' * (len(packages) != 1)}"


def _python_in(home: Path) -> Path:
    return home / "venv" / "bin" / "python"


def _is_complete(home: Path) -> bool:
    return (home / "complete.json").exists() and _python_in(home).exists()
