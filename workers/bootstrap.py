"""Make `opexec.ipc` and `opexec.workers`, and nothing else of opexec, importable in a foreign interpreter.

Loadable by path, alone, in any Python >= 3.7: it is the first of opexec's modules that runs there.
"""

from __future__ import annotations

import importlib.machinery
import marshal
import os
import sys
import types

ROOMS = ("ipc", "workers")


def install(root, overlay=None, bytecode=None):
    """Make the folders `ipc` and `workers` in `root` (the clone, or opexec's folder in site-packages) importable as parts of `opexec`.

    `opexec` itself becomes an empty module: its own ``__init__.py`` belongs to the caller's interpreter and is never run here, even
    where this interpreter has an opexec of its own installed. `overlay`, a folder, goes to the end of `sys.path`. `bytecode`
    is a folder where the two packages' compiled code is kept from one start to the next (compiling takes longer than the
    interpreter itself to start); never is it kept in `root`. Modules outside of the two packages are imported as ever.
    """
    package = types.ModuleType("opexec", "Within a worker only opexec.ipc and opexec.workers exist.")
    package.__path__ = []
    package.__spec__ = importlib.machinery.ModuleSpec("opexec", None, is_package=True)
    sys.modules["opexec"] = package
    if bytecode is not None:
        version = "{}-{:08x}{}".format(
            sys.implementation.cache_tag, sys.hexversion, "-O" * sys.flags.optimize
        )
        bytecode = os.path.join(bytecode, version)
    sys.meta_path.insert(0, _Finder(os.path.abspath(root), bytecode))
    if overlay is not None:
        sys.path.append(overlay)


class _Finder:
    """Finds modules of the two rooms, and forbids every other name under `opexec` to the finders after it."""

    def __init__(self, root, bytecode):
        self._root = root
        self._bytecode = bytecode

    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if parts[0] != "opexec" or len(parts) == 1:
            return None
        place = os.path.join(self._root, *parts[1:])
        if parts[1] in ROOMS:
            init = os.path.join(place, "__init__.py")
            if os.path.isfile(init):
                return self._spec(name, init, [place])
            if os.path.isfile(place + ".py"):
                return self._spec(name, place + ".py", None)
        raise ModuleNotFoundError(
            "No module named {!r}: within a worker only opexec.ipc and opexec.workers exist".format(name),
            name=name,
        )

    def _spec(self, name, path, search):
        kept = self._bytecode and os.path.join(self._bytecode, name)
        loader = _Loader(name, path, kept)
        spec = importlib.machinery.ModuleSpec(name, loader, origin=path, is_package=search is not None)
        spec.submodule_search_locations = search
        spec.has_location = True
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles, or takes what an earlier start compiled from the same source, and leaves nothing beside the source."""

    def __init__(self, name, path, kept):
        super().__init__(name, path)
        self._kept = kept

    def get_code(self, fullname):
        if self._kept is None:
            return self.source_to_code(self.get_data(self.path), self.path)
        status = os.stat(self.path)
        stamp = repr((sys.version, self.path, status.st_mtime_ns, status.st_size)).encode() + b"\0"
        try:
            data = self.get_data(self._kept)
            if data.startswith(stamp):
                return marshal.loads(data[len(stamp) :])
        except (OSError, EOFError, ValueError, TypeError):  # absent, or not what was written
            pass
        code = self.source_to_code(self.get_data(self.path), self.path)
        _replace(self._kept, stamp + marshal.dumps(code))
        return code


def _replace(path, data):
    """Write a file in one step, so that a worker that starts at the same time reads all of it or nothing."""
    scratch = "{}.{}".format(path, os.getpid())
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(scratch, "wb") as file:
            file.write(data)
        os.replace(scratch, path)
    except OSError:  # a full disk, say: the next start compiles again
        pass
