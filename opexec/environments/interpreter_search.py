"""Find the interpreters of a machine, and the one that fits a request.

The newest version that fits wins; of equal versions the one that comes first in this order:

1. the interpreter that runs this process, PATH, pyenv, uv's own store, asdf, mise, the usual system folders
2. conda installations and environments (they come and go with the projects they were made for)
3. scripts on PATH, such as the shims of pyenv, asdf and mise: they are slow, and what they run depends on the
   working directory, so they are asked only if nothing else fits, and those that fail are passed over
4. a download by uv: of the newest that fits or, where packages cannot be had with any that is installed, of one they can

Only CPython with a global interpreter lock is searched for; any other is taken by its path.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BuildError
from ..files import caches
from . import installer
from .build_progress import UvLog
from .interpreters import OLDEST, Interpreter, is_script, numbers_of, probe, target_of

_NAME = re.compile(r"python(3(\.\d+)?)?")
_VERSION = re.compile(r"\d+(\.\d+){0,1}|\d+\.\d+\.\d+((a|b|rc)\d+)?")
_LAST_37 = "3.7.17"  # uv has no build of it for download, but whoever needs it can get it elsewhere
_TOO_OLD = "expected a Python >= {}.{}, the oldest that a worker runs in".format(*OLDEST)


def check_request(python: str) -> str:
    """A request for an interpreter in its normal form: a version, a version range, or an absolute path.

    Raises:
        BuildError: it is none of these.
    """
    text = python.strip()
    if os.sep in text:
        return os.path.abspath(os.path.expanduser(text))
    if _VERSION.fullmatch(text):
        return text
    # Costs 40 ms to import, and most requests are plain versions.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        if text:
            return str(SpecifierSet(text))
    except InvalidSpecifier:
        pass
    raise BuildError(
        f"expected python to be a version ('3.11', '3.7.16'), a range ('>=3.8,<3.12') or the path of an interpreter, "
        f"venv or conda folder; got {python!r}."
    )


def find(python: str, report: Callable[[str], None] = lambda step: None) -> Interpreter:
    """The interpreter that fits a request.

    Args:
        python: ``"3.7"`` (any 3.7.x), ``"3.7.16"``, ``">=3.8,<3.12"`` (PEP 440), or the path of an interpreter, venv or
            conda folder. Pre-releases fit only where the request names one.
        report: told of a download.

    Raises:
        BuildError: nothing fits. Lists what was found, what was passed over and where it looked.
    """
    python = check_request(python)
    if os.path.isabs(python):
        return _supported(probe(python))
    if _VERSION.fullmatch(python):
        numbers = tuple(map(int, re.findall(r"\d+", python)))
        if numbers < OLDEST[: len(numbers)]:
            raise BuildError(f"{_TOO_OLD}; got python={python!r}.")

    caches.folder("interpreters")  # if that fails, it is not for want of an interpreter
    fits = _predicate(python)
    search = _Search()
    for tier in (search.installed, search.conda, search.scripts):
        if fitting := [found for found in tier() if fits(found.version)]:
            # max() keeps the first of equals, so the order of the places decides between them.
            return max(fitting, key=lambda found: found.version_info)
    words = _download(python, report)
    if fitting := [found for found in search.uv() if fits(found.version)]:
        return max(fitting, key=lambda found: found.version_info)
    raise BuildError(search.explain(python, words))


@dataclass(frozen=True)
class Survey:
    """All that a search comes to, whatever it is fit for."""

    found: tuple[Interpreter, ...]
    passed_over: Mapping[Path, str]
    """Files with the name of an interpreter that are none or do not work, each with the reason, on one line."""


def survey() -> Survey:
    """Look everywhere, and have every shim say what it runs here and now. Takes about 0.2 s a shim."""
    search = _Search()
    for _ in (*search.installed(), *search.conda(), *search.scripts()):
        pass
    return Survey(tuple(search.found), {path: _short(words) for path, words in search._passed_over.items()})


def installed() -> list[Interpreter]:
    """Those a worker can run in, without scripts; the places in the order above."""
    search = _Search()
    return [*search.installed(), *search.conda()]


def leaves_choice(python: str | None) -> bool:
    """Whether a request can be met by more than one minor version: it names neither a path nor a version such as ``"3.8"``."""
    return python is None or not (os.path.isabs(python) or _VERSION.fullmatch(python) and "." in python)


def alternatives(python: str | None, to: Interpreter) -> list[Interpreter]:
    """Where else to look for a request when the requirements cannot be had with `to`: of each other minor version (3.8, 3.9)
    one interpreter, the newest first. None where the request leaves no choice.
    """
    if not leaves_choice(python):
        return []
    fits = _predicate(python or "3")
    search = _Search()
    best: dict[tuple[int, int], Interpreter] = {}
    for tier in (search.installed, search.conda):
        # A later place gives only versions that an earlier one lacks. max() keeps the first of equals.
        known = set(best)
        for found in tier():
            minor = found.version_info[:2]
            if fits(found.version) and minor not in known and minor != to.version_info[:2]:
                best[minor] = max(best.get(minor, found), found, key=lambda each: each.version_info)
    return [best[minor] for minor in sorted(best, reverse=True)]


def absent(python: str | None, present: Iterable[Interpreter], offered: Iterable[str]) -> list[str]:
    """Versions that would meet a request and are not installed: of each minor version that none of `present` has, the last
    one; the newest first.

    `offered`: the versions that uv can download.
    """
    fits = _predicate(python or "3")
    taken = {each.version_info[:2] for each in present}
    best: dict[tuple[int, int], str] = {}
    for version in offered:
        minor = numbers_of(version)[:2]
        if fits(version) and minor >= OLDEST and minor not in taken:
            best[minor] = max(best.get(minor, version), version, key=numbers_of)
    if fits(_LAST_37) and (3, 7) not in taken:
        best.setdefault((3, 7), _LAST_37)
    return [best[minor] for minor in sorted(best, reverse=True)]


def download(version: str, report: Callable[[str], None]) -> Interpreter:
    """Have uv download the interpreter of one exact version.

    Raises:
        UvFailed: it could not.
    """
    words = _download(version, report)
    for found in _Search().uv():
        if found.version == version:
            return found
    raise installer.UvFailed(words or f"there is none in uv's store after `uv python install {version}`")


def places() -> str:
    """Where interpreters are looked for, as messages name it."""
    search = _Search()
    for _ in (*search.installed(), *search.conda()):
        pass  # it names each place as it comes to it
    return search.looked_in


def calling() -> Interpreter:
    """The interpreter that runs this process; in a venv the one it was made from.

    Raises:
        BuildError: the process does not know it (Python is embedded in another program).
    """
    path = getattr(sys, "_base_executable", None) or sys.executable
    if not path:
        raise BuildError(
            "expected to run in a Python interpreter, but sys.executable is empty. Name one: python='3.11', or its path."
        )
    return base_of(probe(path))


def base_of(interpreter: Interpreter) -> Interpreter:
    """The interpreter that a venv was made from; of any other, itself.

    Raises:
        BuildError: it is gone, or older than workers need.
    """
    return _supported(probe(interpreter.base_path) if interpreter.is_venv else interpreter)


def _supported(interpreter: Interpreter) -> Interpreter:
    if interpreter.version_info < OLDEST:
        raise BuildError(f"{_TOO_OLD}; got {interpreter}.")
    return interpreter


def _predicate(python: str) -> Callable[[str], bool]:
    """Whether a version such as ``"3.7.16"`` fits a request."""
    if _VERSION.fullmatch(python):
        return lambda version: (
            version == python or (version.startswith(f"{python}.") and version.replace(".", "").isdigit())
        )
    from packaging.specifiers import SpecifierSet

    specifiers = SpecifierSet(python)
    return lambda version: specifiers.contains(version, prereleases=bool(specifiers.prereleases))


def _download(python: str, report: Callable[[str], None]) -> str:
    """Have uv download an interpreter; returns what it said if it could not, else nothing."""
    report(f"no interpreter here fits python={python!r}; asking uv to download one")
    try:
        # Into uv's store alone: nothing appears on the user's PATH.
        variables = {**installer.settings().variables, "UV_PYTHON_INSTALL_BIN": "0"}
        installer.run(["python", "install", python], variables, on_line=UvLog(report))
    except installer.UvFailed as failure:
        return str(failure)
    return ""


class _Search:
    """One pass over the machine; remembers what it saw, to explain a failure."""

    def __init__(self) -> None:
        self.found: list[Interpreter] = []
        self._passed_over: dict[Path, str] = {}
        self._looked: list[str] = []
        self._seen: set[str] = set()
        self._scripts: list[Path] = []
        self._own = os.path.realpath(caches.root() / "environments")

    def installed(self) -> Iterator[Interpreter]:
        executable = getattr(sys, "_base_executable", None) or sys.executable
        if executable:
            yield from self._look("this process", [Path(executable)])
        on_path = [
            Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(folder)
        ]
        yield from self._look("PATH", _pythons_in(on_path))
        pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"), "versions")
        yield from self._look(f"pyenv ({pyenv})", _pythons_in(_bins(pyenv)))
        yield from self.uv()
        asdf = Path(os.environ.get("ASDF_DATA_DIR") or os.path.expanduser("~/.asdf"), "installs", "python")
        yield from self._look(f"asdf ({asdf})", _pythons_in(_bins(asdf)))
        data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
        mise = Path(os.environ.get("MISE_DATA_DIR") or Path(data, "mise"), "installs", "python")
        yield from self._look(f"mise ({mise})", _pythons_in(_bins(mise)))
        system = [Path("/usr/local/bin"), Path("/usr/bin"), *_bins(Path("/opt/python"))]
        yield from self._look("/usr/local/bin, /usr/bin, /opt/python", _pythons_in(system))

    def uv(self) -> Iterator[Interpreter]:
        data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
        store = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path(data, "uv", "python"))
        yield from self._look(f"uv ({store})", _pythons_in(_bins(store)))

    def conda(self) -> Iterator[Interpreter]:
        home = Path(os.path.expanduser("~"))
        roots = [
            Path(os.environ[name]) for name in ("CONDA_PREFIX", "MAMBA_ROOT_PREFIX") if os.environ.get(name)
        ]
        if executable := os.environ.get("CONDA_EXE"):
            roots.append(Path(executable).parent.parent)
        names = ("miniconda3", "miniforge3", "mambaforge", "anaconda3", "micromamba")
        roots += [home / name for name in names] + [Path("/opt", name) for name in ("conda", *names)]
        known = home / ".conda" / "environments.txt"
        prefixes = []
        with contextlib.suppress(OSError):
            lines = known.read_text(encoding="utf-8", errors="replace").splitlines()
            prefixes = [Path(line) for line in lines if os.path.isabs(line)]
        folders = [root / "bin" for root in roots] + [
            folder for root in roots for folder in _bins(root / "envs")
        ]
        folders += [prefix / "bin" for prefix in prefixes]
        yield from self._look("conda (~/.conda/environments.txt and the usual folders)", _pythons_in(folders))

    def scripts(self) -> Iterator[Interpreter]:
        from concurrent.futures import (
            ThreadPoolExecutor,
        )  # most requests come no further than the tiers above

        def ask(script: Path) -> Path | BuildError:
            try:
                return target_of(script)
            except BuildError as error:
                return error

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, self._scripts))
        for script, answer in zip(self._scripts, answers):
            if isinstance(answer, BuildError):
                self._passed_over[script] = str(answer)
            else:
                yield from self._look("", [answer])

    def _look(self, place: str, candidates: list[Path]) -> Iterator[Interpreter]:
        if place and place not in self._looked:
            self._looked.append(place)
        for path in candidates:
            real = os.path.realpath(path)
            if real in self._seen:
                continue
            self._seen.add(real)
            if is_script(path):
                self._scripts.append(path)
                continue
            try:
                interpreter = probe(path)
                if interpreter.is_venv:
                    interpreter = probe(interpreter.base_path)
            except BuildError as error:
                self._passed_over[path] = str(error)
                continue
            if interpreter in self.found:
                continue
            if Path(os.path.realpath(interpreter.prefix)).is_relative_to(self._own):
                continue  # a conda environment of the cache, which conda lists too, may be pruned under what is made from it
            self.found.append(interpreter)
            if interpreter.implementation == "cpython" and not interpreter.free_threaded:
                if interpreter.version_info >= OLDEST:
                    yield interpreter

    @property
    def looked_in(self) -> str:
        return "; ".join(self._looked)

    def explain(self, python: str, uv_words: str) -> str:
        lines = [
            f"expected an interpreter that fits python={python!r}, and there is none on this machine.",
            "found:",
        ]
        lines += [f"  {found}" for found in sorted(self.found, key=lambda found: found.version_info)] or [
            "  none"
        ]
        if self._passed_over:
            lines.append("passed over:")
            lines += [f"  {path}: {_short(words)}" for path, words in self._passed_over.items()]
        lines.append(f"looked in: {self.looked_in}")
        if uv_words:
            lines.append("uv could not download one:")
            lines += [f"  {line}" for line in uv_words.splitlines()]
        lines.append(
            "Install one that fits into one of these places, ask for another version, or give the path of an interpreter."
        )
        return "\n".join(lines)


def _short(words: str) -> str:
    """The part of a probe's error that tells this interpreter from others, on one line."""
    told = words.partition("asked what it is, ")[2] or words.partition(" or conda folder; ")[2] or words
    return told.partition(". Give the path")[0].partition("\n")[0]


def _bins(folder: Path) -> list[Path]:
    """The ``bin`` of each installation in a folder of installations."""
    try:
        return [folder / name / "bin" for name in sorted(os.listdir(folder))]
    except OSError:
        return []


def _pythons_in(folders: list[Path]) -> list[Path]:
    """The files named python, python3 or python3.x; the names that say most first, because they are re-pointed least."""
    paths = []
    for folder in folders:
        try:
            names = [
                name for name in os.listdir(folder) if name.startswith("python") and _NAME.fullmatch(name)
            ]
        except OSError:
            continue
        paths += [folder / name for name in sorted(names, key=lambda name: (-len(name), name))]
    return paths
