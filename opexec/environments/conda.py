"""Environments from a conda ``environment.yml``, made by the user's own micromamba, mamba or conda.

The folder in the cache is as that of every environment, with conda's prefix where the venv would be, and beside it
``conda.lock``: the exact packages as the tool lists them ("explicit"), kept so that a rebuild gives the same ones. Packages that the
file has pip install are not in such a list; where there are any, a rebuild chooses anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BuildError
from ..files import caches
from . import build as environment_build
from .interpreters import probe

if TYPE_CHECKING:
    from ..environment import Environment

_TOOLS = ("micromamba", "mamba", "conda")
_FORMAT = 1
# Variables of an active environment, which would be taken for the one that is meant.
_UNWANTED = ("CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONHOME", "PYTHONPATH")


def resolve(environment: Environment, report: Callable[[str], None]) -> Path:
    """The interpreter of a conda environment, built if need be. Raises BuildError."""
    file = Path(environment.conda or "")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(
            f"expected conda to be an environment.yml, but {file} cannot be read: {error}."
        ) from error
    # Which tool makes it does not matter to what it is; where it is read from does, if it installs a folder beside it.
    beside = str(file.parent) if re.search(r"^\s*-\s*(-e\s+)?\.", text, re.MULTILINE) else None
    key = caches.digest({"format": _FORMAT, "conda": text, "beside": beside, "machine": os.uname().machine})
    home = caches.folder("environments") / key
    if not environment_build.is_complete(home):
        _build(environment, file, text, home, report)
    caches.touch(home / "used")
    return environment_build.python_in(home)


def _build(
    environment: Environment, file: Path, text: str, home: Path, report: Callable[[str], None]
) -> None:
    began = time.monotonic()
    tool = _tool(environment)
    with environment_build.building(home, report) as lock:
        if lock is None:
            return
        prefix, explicit = home / "venv", home / "conda.lock"
        has_pip = re.search(r"^\s*-\s*pip\s*:", text, re.MULTILINE)
        report(f"{tool.name} is making it")
        if explicit.is_file() and not has_pip:
            _run(environment, [tool, "create", "--yes", "--prefix", prefix, "--file", explicit], lock, report)
        elif tool.name == "micromamba":
            _run(environment, [tool, "create", "--yes", "--prefix", prefix, "--file", file], lock, report)
        else:
            _run(environment, [tool, "env", "create", "--prefix", prefix, "--file", file], lock, report)
        if not (prefix / "bin" / "python").exists():
            raise BuildError(
                f"expected {file} to ask for python, because a worker runs in it. Add 'python' and 'numpy'."
            )
        if not has_pip:
            command = ["env", "export", "--explicit"] if tool.name == "micromamba" else ["list", "--explicit"]
            listed = _run(environment, [tool, *command, "--prefix", prefix], lock, lambda line: None)
            caches.write_text(explicit, listed)
        python = probe(prefix)
        made_with = {"path": str(tool), "version": python.version, "platform": python.platform}
        made_with["implementation"] = python.implementation
        environment_build.finish(environment, home, made_with, [], began, report)


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
    environment: Environment, command: Sequence[str | Path], lock: int, report: Callable[[str], None]
) -> str:
    """Run the tool, with the lock held for as long as it runs; what it printed on standard output. Raises BuildError."""
    environ = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            pass_fds=[lock],
        )
    except OSError as error:
        raise BuildError(f"expected to run {command[0]}, but it cannot be started: {error}.") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-4000:]
        lines = [f"cannot build the environment {environment}. {Path(command[0]).name} says:"]
        lines += [f"  {line}" for line in words.splitlines()]
        raise BuildError("\n".join([*lines, "Change the file, or the tool's channels."]))
    return done.stdout
