"""Environments from a conda ``environment.yml``, made by the user's own micromamba, mamba or conda.

The folder in the cache is as that of every environment, with conda's prefix where the venv would be, and beside it
``conda.lock``: the exact packages as the tool lists them ("explicit"), kept so that a rebuild gives the same ones. Packages that the
file has pip install are not in such a list; where there are any, a rebuild chooses anew.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..credentials import without_credentials
from ..errors import BuildError
from ..files import caches
from . import build as environment_build
from . import conda_file, requirements_file, tool
from .build_progress import CondaLog
from .interpreters import probe

if TYPE_CHECKING:
    from ..environment import Environment

_TOOLS = ("micromamba", "mamba", "conda")
_FORMAT = 1
# Variables of an active environment, which would be taken for the one that is meant.
_UNWANTED = ("CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONHOME", "PYTHONPATH")
# Nobody is there to be asked, and what is said is to be heard when it is said.
_SETTINGS = {"CONDA_ALWAYS_YES": "true", "MAMBA_ALWAYS_YES": "true", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}


def resolve(environment: Environment, report: Callable[[str], None]) -> Path:
    """The interpreter of a conda environment, built if need be. Raises BuildError."""
    file = Path(environment.conda or "")
    text = _read(file)
    home = caches.folder("environments") / key(file, text)
    if not environment_build.is_complete(home):
        _build(environment, home, report, file, text)
    caches.touch(home / "used")
    return environment_build.python_in(home)


def rebuild(environment: Environment, home: Path, report: Callable[[str], None]) -> Path:
    """The interpreter of one that was removed, with the packages in its ``conda.lock``. Raises BuildError."""
    caches.folder("environments")
    explicit = home / "conda.lock"
    _build(environment, home, report, explicit, _read(explicit))
    caches.touch(home / "used")
    return environment_build.python_in(home)


def key(file: Path, text: str | None = None) -> str:
    """The name of the environment's folder: a digest of all that decides what the file installs. Raises BuildError."""
    text = _read(file) if text is None else text
    # Which tool makes it does not matter to what it is.
    return caches.digest(
        {
            "format": _FORMAT,
            "conda": without_credentials(requirements_file.filled_in(text)),
            "beside": conda_file.taken_from(file, text) or None,
            "machine": os.uname().machine,
        }
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(
            f"expected conda to be an environment.yml, but {file} cannot be read: {error}."
        ) from error


def _has_pip(text: str) -> bool:
    return bool(re.search(r"""(^\s*-\s*|[\[{,]\s*)['"]?pip['"]?\s*:""", text, re.MULTILINE))


def _build(
    environment: Environment, home: Path, report: Callable[[str], None], file: Path, text: str
) -> None:
    began = time.monotonic()
    program = _tool(environment)
    has_pip = _has_pip(text)
    with environment_build.building(home, report) as lock:
        if lock is None:
            return
        prefix, explicit = home / "venv", home / "conda.lock"
        report(f"{program.name} is making it")
        log = CondaLog(report)
        kept = explicit.is_file() and not has_pip
        if kept or _is_exact(text) or program.name == "micromamba":
            create = ["create", "--yes"]
        else:
            create = ["env", "create"]
        ended = _run([program, *create, "--prefix", prefix, "--file", explicit if kept else file], lock, log)
        if ended.status != 0:
            lines = [f"cannot build the environment {environment}. {program.name} says:"]
            lines += [f"  {line}".rstrip() for line in (ended.said or ended.how).splitlines()]
            raise BuildError("\n".join([*lines, "Change the file, or the tool's channels."]))
        if not (prefix / "bin" / "python").exists():
            raise BuildError(
                f"expected {file} to ask for python, because a worker runs in it. Add 'python' and 'numpy'."
            )
        if not has_pip:
            _list(program, prefix, explicit, lock, report)
        python = probe(prefix)
        made_with = {"path": str(program), "version": python.version, "platform": python.platform}
        made_with["implementation"] = python.implementation
        environment_build.finish(environment, home, made_with, [], began, report)


def _is_exact(text: str) -> bool:
    """Whether it is no environment.yml but a list of exact packages, as `opexec env lock` prints it of a conda environment."""
    return bool(re.search("^@EXPLICIT$", text, re.MULTILINE))


def _list(program: Path, prefix: Path, explicit: Path, lock: int, report: Callable[[str], None]) -> None:
    """Keep the exact packages. Without them the environment is as good; only a rebuild would choose anew."""
    ways: list[list[str | Path]] = [["env", "export", "--explicit"], ["list", "--explicit"]]
    if program.name != "micromamba":  # mamba is a program of its own, or as micromamba since its version 2
        ways.reverse()
    for way in ways[: 1 if program.name == "conda" else 2]:
        listed = explicit.parent / "building" / "explicit.txt"
        listed.parent.mkdir(exist_ok=True)
        with open(listed, "w", encoding="utf-8") as output:
            ended = _run([program, *way, "--prefix", prefix], lock, lambda line: None, output)
        text = listed.read_text(encoding="utf-8", errors="replace")
        if ended.status == 0 and "@EXPLICIT" in text:
            caches.write_text(explicit, text)
            return
    report(f"{program.name} does not list its exact packages; should it be built again, they are chosen anew")


def _tool(environment: Environment) -> Path:
    """The user's own: the first on PATH, else what MAMBA_EXE or CONDA_EXE names, as the tools' shell hooks set them."""
    named = [path for path in map(os.environ.get, ("MAMBA_EXE", "CONDA_EXE")) if path]
    for candidate in (*_TOOLS, *named):
        if found := shutil.which(candidate):
            return Path(found)
    raise BuildError(
        f"expected micromamba, mamba or conda on PATH to make the environment {environment}; there is none. "
        "Install one (micromamba is a single file), or list the packages as requirements of an Environment."
    )


def _run(
    command: Sequence[str | Path], lock: int, on_line: Callable[[str], None], stdout: IO[str] | None = None
) -> tool.Ended:
    """Run the tool, with the lock held for as long as it runs. Raises BuildError."""
    environ = {name: value for name, value in os.environ.items() if name not in _UNWANTED} | _SETTINGS
    try:
        return tool.follow(command, environ, on_line=on_line, keep_open=[lock], stdout=stdout)
    except OSError as error:
        raise BuildError(f"expected to run {command[0]}, but it cannot be started: {error}.") from error
