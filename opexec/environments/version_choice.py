"""Choosing exact versions with uv's resolver, and the interpreter for which there are any.

Where the request leaves the interpreter open, a first round asks of each, the best first, whether the requirements can be had as
wheels: ``torch==1.4.0`` has none past Python 3.8, and ``scikit-learn==0.23.2`` none past 3.8, though it has a source archive that
takes long to fail in. Only if no interpreter has wheels for everything does a second round allow source archives too.
Where nothing fits those that are installed, the same is asked of those that are not: a resolver needs no more of an interpreter
than its version. The newest that does is downloaded.
Whatever else goes wrong than "no versions fit" (no network, a package that does not build) ends the choice: it says
nothing about another interpreter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import BuildError
from . import interpreter_search
from .installer import Settings, Uv, UvFailed
from .interpreters import Interpreter
from .requirement import canonical, local_path, name_of, pinned_in

_PLAIN = ("--no-header", "--no-annotate")  # of paths that only this machine has


@dataclass(frozen=True)
class Wanted:
    """What to choose for."""

    title: str
    """The environment, as messages name it."""
    requirements: Sequence[str]
    constraints: Sequence[str]
    lock: str | None
    """The text of a file of exact versions, which leaves no more than the interpreter to choose."""
    lock_path: str | None
    python: str | None
    """The request for an interpreter."""
    first: Interpreter
    others: Callable[[], list[Interpreter]] | None
    """Where to look if nothing fits the first, in this order; None where the request names the interpreter. Called only when
    needed, because it looks over the machine."""
    settings: Settings


class NoVersions(UvFailed):
    """No versions fit any interpreter. The text is what uv said of the first; `advice` what was tried besides, and what to do."""

    def __init__(self, words: str, advice: str) -> None:
        super().__init__(words)
        self.advice = advice


@dataclass(frozen=True)
class Chosen:
    """What came of it."""

    base: Interpreter
    lock: str
    """The exact versions of all packages, as a requirements file."""
    passed_over: Sequence[str] = ()
    """Versions of the interpreters that came before it, for which there are no versions of the packages."""


def choose(wanted: Wanted, uv: Uv, report: Callable[[str], None]) -> Chosen:
    """Choose the interpreter and the versions.

    Raises:
        BuildError: the lock is not one of exact versions.
        NoVersions: no versions fit any interpreter that is installed, and none that would do could be downloaded.
        UvFailed: anything else that uv failed in.
    """
    if wanted.lock is not None:
        _check_lock(wanted)
    base, passed_over = _interpreter(wanted, uv, report)
    if passed_over:
        report(f"taking Python {base.version}: no versions fit {_minors(passed_over)}")
    if wanted.lock is not None:
        return Chosen(
            base, _with_python(wanted.lock, base, passed_over), [each.version for each in passed_over]
        )
    report(f"choosing versions for {base}")
    resolved = _pin(wanted, uv, base, wanted.requirements)
    if "numpy" not in map(name_of, pinned_in(resolved)):
        # Only now, when nothing asks for numpy. Asked for from the start, the newest numpy could be
        # preferred to the newest version of a package that wants an older one.
        resolved = _pin(wanted, uv, base, [*wanted.requirements, "numpy"])
    lock = f"# {wanted.title}\n{_head(base, passed_over)}{resolved}"
    return Chosen(base, lock, [each.version for each in passed_over])


def python_of(lock: str) -> str | None:
    """The line of Python (``"3.7"``) that a lock was made for, if it is one that was written here."""
    match = re.search(r"^# python: (\d+\.\d+)\.", lock, re.MULTILINE)
    return match and match.group(1)


def _head(base: Interpreter, passed_over: list[Interpreter]) -> str:
    """The Python that versions were chosen for, as `python_of` reads it."""
    lines = [f"# python: {base.version} ({base.implementation}, {base.platform})"]
    if passed_over:
        lines.append(f"# no versions fit: {_minors(passed_over)}")
    return "".join(f"{line}\n" for line in lines)


def _with_python(lock: str, base: Interpreter, passed_over: list[Interpreter]) -> str:
    """A lock that was given, with the Python it is installed for: from it another machine is to take the same one."""
    if python_of(lock) == "{}.{}".format(*base.version_info):
        return lock
    stale = re.compile(r"# (python|no versions fit): ")
    kept = (line for line in lock.splitlines(keepends=True) if not stale.match(line))
    return _head(base, passed_over) + "".join(kept)


def _interpreter(
    wanted: Wanted, uv: Uv, report: Callable[[str], None]
) -> tuple[Interpreter, list[Interpreter]]:
    """The first for which there are versions, and those before it for which there are none.

    Raises UvFailed.
    """
    if wanted.others is None:
        return wanted.first, []
    pinned = wanted.requirements if wanted.lock is None else pinned_in(wanted.lock)
    options = [] if wanted.lock is None else ["--no-deps"]
    # A folder or an archive of sources has to be built for its requirements to be known.
    rounds = [[*options, "--no-build"], options] if not any(map(_is_source, pinned)) else [options]
    refused: dict[Path, str] = {}
    for allowed in rounds:
        tried: list[Interpreter] = []
        for candidate in _in_turn(wanted):
            if tried:
                what = "wheels" if "--no-build" in allowed else "versions"
                report(f"no {what} fit Python {tried[-1].version}; trying {candidate.version}")
            words = _refusal(wanted, uv, candidate, pinned, allowed)
            if words is None:
                return candidate, tried
            refused[candidate.path] = words
            tried.append(candidate)
        if not any("no usable wheels" in words for words in refused.values()):
            break  # nothing failed for want of building
    advice = f"No versions fit these either: {_minors(tried[1:])}.\n" if len(tried) > 1 else ""
    absent = interpreter_search.absent(wanted.python, tried, _offered(uv))
    for version in absent:
        report(f"trying Python {version}, which is not installed")
        if _refusal(wanted, uv, wanted.first, pinned, [*rounds[0], "--python-version", version]) is None:
            return _downloaded(version, refused[wanted.first.path], advice, report), tried
    if absent:
        advice += f"Nor do wheels for one that is not installed: Python {', '.join(absent)}.\n"
    advice += f"{_looked_in()}Change the requirements, or ask for another Python."
    raise NoVersions(refused[wanted.first.path], advice)


def _refusal(
    wanted: Wanted, uv: Uv, base: Interpreter, requirements: Iterable[str], options: Sequence[str]
) -> str | None:
    """What uv says where no versions fit; None where some do. Raises UvFailed for anything else."""
    try:
        _pin(wanted, uv, base, requirements, options)
    except UvFailed as failure:
        if not failure.is_resolution:
            raise
        return str(failure)
    return None


def _offered(uv: Uv) -> list[str]:
    """The versions of CPython, without those built without a global interpreter lock, that uv can download for this machine."""
    # Older uvs list nothing where the user does not want downloads. The list alone downloads nothing.
    variables = {**uv.settings.variables, "UV_PYTHON_DOWNLOADS": "automatic"}
    lists = replace(uv, settings=Settings(variables))
    path = uv.work / "downloads.txt"
    with open(path, "w", encoding="utf-8") as file:
        lists("python", "list", "--only-downloads", "--all-versions", stdout=file)
    return re.findall(r"^cpython-([^-+]+)-", path.read_text(encoding="utf-8"), re.MULTILINE)


def _downloaded(version: str, words: str, advice: str, report: Callable[[str], None]) -> Interpreter:
    try:
        return interpreter_search.download(version, report)
    except UvFailed as failure:
        minor = version.rpartition(".")[0]
        said = "".join(f"  {line}\n" for line in str(failure).splitlines())
        raise NoVersions(
            words,
            f"{advice}Python {minor} would do. It is not installed, and uv could not download it:\n{said}{_looked_in()}"
            f"Install Python {minor} there (with a network, `uv python install {minor}` or `pyenv install {minor}` does), "
            "give the path of one, or change the requirements.",
        ) from None


def _looked_in() -> str:
    return f"Interpreters were looked for in: {interpreter_search.places()}.\n"


def _in_turn(wanted: Wanted) -> Iterator[Interpreter]:
    yield wanted.first
    if wanted.others is not None:
        yield from wanted.others()


def _is_source(requirement: str) -> bool:
    return "@" in requirement and not requirement.partition(" ;")[0].strip().endswith(".whl")


def _pin(
    wanted: Wanted, uv: Uv, base: Interpreter, requirements: Iterable[str], options: Sequence[str] = ()
) -> str:
    asked, chosen = uv.work / "requirements.in", uv.work / "chosen.txt"
    asked.write_text("".join(f"{item}\n" for item in requirements), encoding="utf-8")
    chosen.unlink(missing_ok=True)  # uv would prefer the versions in it
    options = [*options, *_constrained(wanted, uv), *wanted.settings.pip_options, *refreshed(requirements)]
    uv("pip", "compile", asked, "--output-file", chosen, "--python", base.path, *_PLAIN, *options)
    return chosen.read_text(encoding="utf-8")


def _constrained(wanted: Wanted, uv: Uv) -> list[str]:
    if not wanted.constraints:
        return []
    bounds = uv.work / "constraints.in"
    bounds.write_text("".join(f"{item}\n" for item in wanted.constraints), encoding="utf-8")
    # The option replaces the variable, and both are to hold.
    files = [str(bounds), *os.environ.get("UV_CONSTRAINT", "").split()]
    return [option for file in files for option in ("--constraint", file)]


def refreshed(requirements: Iterable[str]) -> list[str]:
    """Options that have uv build packages in local folders anew: its cache does not look at every file of a folder."""
    local = [name_of(item) for item in requirements if local_path(item)]
    return [option for name in local for option in ("--refresh-package", name)]


def _check_lock(wanted: Wanted) -> None:
    """Raises BuildError unless the lock has exact versions, numpy, and what is required."""
    text, where = wanted.lock or "", wanted.lock_path
    wrong = [
        line for line in pinned_in(text) if not re.search(r"===?\s*[^*\s,]+\s*(;|$)|\S\s*@\s*\w+:", line)
    ]
    wrong += re.findall(r"^\s*(?:-[erc]\b|--(?:editable|requirement|constraint)\b).*$", text, re.MULTILINE)
    if wrong:
        raise BuildError(
            f"expected {where} to have exact versions alone (name==version), one a line; got {wrong[0].strip()!r}. "
            "Make it with `uv pip compile`, or give the file to Environment.from_requirements."
        )
    versions = {canonical(name_of(line)): line for line in pinned_in(text)}
    if "numpy" not in versions:
        raise BuildError(f"expected numpy in {where}, because a worker needs it. Add a line 'numpy==...'.")
    if not wanted.requirements and not wanted.constraints:
        return
    from packaging.requirements import Requirement

    for item in (*wanted.requirements, *wanted.constraints):
        required = Requirement(item)
        if required.marker is not None:
            continue  # it may be meant for another interpreter than the lock
        line = versions.get(required.name)
        if line is None and item in wanted.constraints:
            continue
        exact = re.search(r"===?\s*([^;\s]+)", line) if line else None
        if line is None or exact and not required.specifier.contains(exact.group(1), prereleases=True):
            has = repr(line) if line else "no such package"
            raise BuildError(
                f"expected {where} to satisfy {item!r}; it has {has}. Make the lock anew, or leave that out."
            )


def _minors(interpreters: Sequence[Interpreter]) -> str:
    return "Python " + ", ".join(each.version for each in interpreters)
