"""Describe a Python interpreter: run it once, and keep what it said for as long as it still holds.

`probe` runs the interpreter isolated (``-I``) and without writing bytecode (``-B``), as workers do, so it
sees what a worker will see: neither PYTHONPATH nor the user's own site-packages. Which interpreters a machine
has is found by `interpreter_search`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BuildError
from ..files import caches

OLDEST = (3, 7)  # of the interpreters that a worker can run in

_FORMAT = 1  # of the cached records
_SECONDS = 30.0  # given to an interpreter to say what it is
_MARK = "opexec-interpreter:"
# The one failure that is kept too: it will not mend itself, and a search would start every Python 2 of the machine each time.
_TOO_OLD: dict[str, Any] = {"failure": "too old"}
#: What is said of such a one.
TOO_OLD_TO_SAY = "it does not know the option -I, as Python before 3.4 does not"

# Runs in the foreign interpreter, Python 3.4 and later. The marked line stands apart from what site or a .pth file prints.
_QUESTION = (
    """
import importlib.util, json, os, platform, re, sys, sysconfig

def base():
    if sys.prefix == sys.base_prefix:
        return sys.executable
    told = getattr(sys, "_base_executable", None)
    if told and told != sys.executable:
        return told
    return os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])

def numpy():
    spec = importlib.util.find_spec("numpy")
    if spec is None or not spec.origin:
        return None
    pattern = re.compile(r"numpy-(\\d[^-]*?)(-py[\\d.]+)?\\.(dist|egg)-info$")
    matches = list(filter(None, map(pattern.match, os.listdir(os.path.dirname(os.path.dirname(spec.origin))))))
    if len(matches) == 1:
        return matches[0].group(1)
    try:
        import numpy
        return numpy.__version__
    except Exception:
        return None

level = {"alpha": "a", "beta": "b", "candidate": "rc", "final": ""}[sys.version_info[3]]
answer = {
    "executable": sys.executable,
    "version": "%d.%d.%d" % sys.version_info[:3] + (level + str(sys.version_info[4]) if level else ""),
    "implementation": sys.implementation.name,
    "cache_tag": sys.implementation.cache_tag or "",
    "soabi": sysconfig.get_config_var("SOABI") or "",
    "platform": sysconfig.get_platform(),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "build": sys.version,
    "prefix": sys.prefix,
    "base_path": base(),
    "is_venv": sys.prefix != sys.base_prefix,
    "numpy": numpy(),
    "search_path": sys.path,
}
sys.stdout.write("\\n" + """
    + repr(_MARK)
    + """ + json.dumps(answer) + "\\n")
"""
)


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter, as it described itself."""

    path: Path
    """What to execute. Absolute; in a venv the venv's own link, whose target alone would be another environment."""
    version: str
    """``"3.7.16"``, ``"3.14.0rc1"``."""
    implementation: str
    """``sys.implementation.name``: ``"cpython"``, ``"pypy"``."""
    cache_tag: str
    """``sys.implementation.cache_tag``, the mark of its bytecode files: ``"cpython-37"``."""
    soabi: str
    """The mark of its extension modules: ``"cpython-37m-x86_64-linux-gnu"``; empty where it has none."""
    platform: str
    """``sysconfig.get_platform()``: ``"linux-x86_64"``."""
    free_threaded: bool
    """It was built without the global interpreter lock."""
    build: str
    """``sys.version``: version, build date and compiler on one or two lines."""
    prefix: Path
    """``sys.prefix``: the folder of the venv, conda environment or installation."""
    base_path: Path
    """The interpreter that a venv was made from; `path` itself outside of venvs."""
    is_venv: bool
    numpy: str | None
    """The version of the numpy that it would import, or None."""

    @property
    def version_info(self) -> tuple[int, int, int]:
        """Major, minor, micro."""
        return numbers_of(self.version)

    def __str__(self) -> str:
        name = {"cpython": "Python", "pypy": "PyPy"}.get(self.implementation, self.implementation)
        return f"{name} {self.version}{' free-threaded' if self.free_threaded else ''} ({self.path})"


def numbers_of(version: str) -> tuple[int, int, int]:
    """Major, minor, micro of a version such as ``"3.7.16"`` or ``"3.14.0rc1"``."""
    major, minor, micro = (int(re.match(r"\d+", part).group()) for part in version.split("."))  # type: ignore[union-attr]
    return major, minor, micro


def interpreter_of(path: str | os.PathLike[str]) -> Path:
    """The interpreter meant by a path: itself, or the one in a venv or conda folder. Links are not followed.

    Raises:
        BuildError: there is nothing, a folder that is neither a venv nor a conda environment, or a file that cannot be executed.
    """
    given = os.path.abspath(os.path.expanduser(path))
    wanted = "expected the path of a Python interpreter, or of a venv or conda folder"
    if not os.path.lexists(given):
        raise BuildError(f"{wanted}; {given} does not exist. Check the path.")
    if os.path.isdir(given):
        kind = (
            "venv" if os.path.isfile(os.path.join(given, "pyvenv.cfg"))
            else "conda environment" if os.path.isdir(os.path.join(given, "conda-meta"))
            else None
        )  # fmt: skip
        inside = os.path.join(given, "bin", "python")
        if kind is None:
            cure = f"Give the interpreter itself: {inside}" if os.path.exists(inside) else "Check the path."
            raise BuildError(f"{wanted}; {given} is a folder without pyvenv.cfg or conda-meta. {cure}")
        if not os.path.lexists(inside):
            raise BuildError(
                f"{wanted}; the {kind} {given} has no bin/python. Install Python into it, or make it anew."
            )
        given = inside
    if not os.path.exists(given):
        raise BuildError(
            f"{wanted}; {given} is a link to {os.path.realpath(given)}, which does not exist: the Python it was made with "
            "was removed or replaced. Make the environment anew."
        )
    if not os.path.isfile(given) or not os.access(given, os.X_OK):
        raise BuildError(
            f"{wanted}; {given} is not a file that this user may execute. Check the path and its permissions."
        )
    return Path(given)


def probe(path: str | os.PathLike[str]) -> Interpreter:
    """Describe the interpreter at a path; of a venv or conda folder the one within.

    It is run once and its answer kept in the cache until its file, its ``pyvenv.cfg`` or a folder it imports from has
    changed, so a numpy that is installed later is seen. A script (a shim, a wrapper) can answer differently every time
    and is always run.

    Raises:
        BuildError: as `interpreter_of`; or what is there does not answer as Python 3 does.
    """
    executable = interpreter_of(path)
    record = caches.folder("interpreters") / f"{caches.digest(str(executable))}.json"
    kept = caches.read_json(record)
    try:
        if kept["format"] == _FORMAT and kept["stamp"] == _stamp(executable, kept["watched"]):
            return _described(kept["answer"], executable)
    except (KeyError, TypeError):
        pass  # nothing kept, or not by this code
    answer = _ask(executable)
    if not is_script(executable):
        watched = (
            []
            if answer == _TOO_OLD
            else [os.path.join(answer["prefix"], "pyvenv.cfg"), *answer.pop("search_path")]
        )
        entry = {
            "format": _FORMAT,
            "watched": watched,
            "stamp": _stamp(executable, watched),
            "answer": answer,
        }
        caches.write_json(record, entry)
    return _described(answer, executable)


def target_of(script: Path) -> Path:
    """The interpreter that a shim or wrapper script runs here and now.

    Raises:
        BuildError: it does not run one.
    """
    answer = _ask(script)
    _described(answer, script)  # raises if it is too old to say
    return Path(answer["executable"])


def is_script(path: Path) -> bool:
    """Whether the kernel hands the file to another program (``#!``), as it does with the shims of version managers."""
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _described(answer: dict[str, Any], executable: Path) -> Interpreter:
    if answer == _TOO_OLD:
        raise _not_python(executable, TOO_OLD_TO_SAY)
    fields = {name: answer[name] for name in Interpreter.__dataclass_fields__ if name != "path"}
    fields["prefix"] = Path(fields["prefix"])
    fields["base_path"] = Path(fields["base_path"]) if answer["is_venv"] else executable
    return Interpreter(path=executable, **fields)


def _stamp(executable: Path, watched: list[str]) -> list[Any]:
    """What has to be unchanged for a kept answer to hold."""
    stamp: list[Any] = []
    with contextlib.suppress(OSError):
        status = os.stat(executable)
        stamp = [os.path.realpath(executable), status.st_mtime_ns, status.st_size, status.st_ino]
    for path in watched:
        try:
            stamp.append(os.stat(path).st_mtime_ns)
        except OSError:
            stamp.append(None)
    return stamp


def _ask(executable: Path) -> dict[str, Any]:
    try:
        process = subprocess.Popen(
            [executable, "-I", "-B", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise _not_python(executable, f"it cannot be executed: {error.strerror}") from error
    try:
        output, complaints = process.communicate(timeout=_SECONDS)
    except BaseException as error:
        # The whole group: what a wrapper has started would keep the pipes open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise _not_python(executable, f"it did not answer within {_SECONDS:.0f} s") from None
        raise
    for line in output.splitlines():
        if process.returncode == 0 and line.startswith(_MARK):
            answer = json.loads(line[len(_MARK) :])
            assert isinstance(answer, dict)
            return answer
    if "Unknown option: -I" in complaints:
        return _TOO_OLD
    said = complaints.strip() or output.strip()
    ended = (
        "it printed something else" if process.returncode == 0
        else f"it was ended by {signal.Signals(-process.returncode).name}" if process.returncode < 0
        else f"it ended with status {process.returncode}"
    )  # fmt: skip
    raise _not_python(executable, ended + (f": {said[-500:]}" if said else " and no output"))


def _not_python(executable: Path, what: str) -> BuildError:
    return BuildError(
        f"expected {executable} to be a Python interpreter; asked what it is, {what}. "
        f"Give the path of a Python >= {OLDEST[0]}.{OLDEST[1]}, or a version such as '3.11' to search for."
    )
