"""Python files of the user's own, run in this process for what they declare: a metric, a problem."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType

from ..errors import OpexecError
from ..problem import Problem


def run(path: str, whose: str) -> ModuleType:
    """The module of a file, whose own folder is on the import path meanwhile. Raises OpexecError, which says `whose` file it is."""
    spec = importlib.util.spec_from_file_location(f"opexec_file_{os.path.basename(path)[:-3]}", path)
    if spec is None or spec.loader is None:
        raise OpexecError(f"{whose} file has to be of Python, with a name that ends in .py; got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(path))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise OpexecError(f"{whose} file {path} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(os.path.dirname(path))
    return module


def find_problem(declared: str | os.PathLike[str]) -> Problem:
    """The problem in a JSON file, or the `Problem` that ``"file.py:name"`` names. Raises OpexecError."""
    given = os.fspath(declared)
    place, _, name = given.rpartition(":")
    if given.endswith(".py"):
        place, name = given, ""
    elif not place.endswith(".py"):
        return Problem.read(given)
    path = os.path.abspath(os.path.expanduser(place))
    if not os.path.isfile(path):
        raise OpexecError(f"there is no file {path}, which {given!r} names; check the path")
    module = run(path, "the problem's")
    found = getattr(module, name, None)
    if not isinstance(found, Problem):
        known = [key for key, value in vars(module).items() if isinstance(value, Problem)]
        raise OpexecError(
            f"expected the name of a Problem, as in '{place}:NAME', got {given!r}; {path} has {', '.join(known) or 'none'}"
        )
    return found
