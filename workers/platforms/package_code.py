"""Code of packages, each imported as a package of its own.

All that lies in ``0/code`` becomes part of one package with a name that nothing else has, so that two model packages may have modules of
equal names in one process. Relative imports need nothing more. For absolute ones (``import my_code.layers``) these modules have an
``__import__`` of their own, which looks into ``0/code`` first.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import importlib.util
import itertools
import os
import sys
import types

_numbers = itertools.count()


class Code:
    """The modules in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.name = "opexec_package_{}".format(next(_numbers))
        self._tops = set()
        if os.path.isdir(folder):
            self._tops = {entry.partition(".")[0] for entry in os.listdir(folder)} - {
                "",
                "__pycache__",
                "__init__",
            }
        self._builtins = dict(vars(builtins), __import__=self._import)
        root = types.ModuleType(self.name)
        root.__path__ = [folder]
        root.__package__ = self.name
        sys.modules[self.name] = root
        sys.meta_path.insert(0, _Finder(self))

    def module(self, name):
        """Import ``"my_code.main"``. Raises ModuleNotFoundError, saying what there is, and whatever the code raises."""
        try:
            return importlib.import_module("{}.{}".format(self.name, name))
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not missing.startswith(self.name + "."):
                raise
            raise ModuleNotFoundError(
                "there is no module {!r} in the package's 0/code; there is {}".format(
                    missing[len(self.name) + 1 :], ", ".join(sorted(self._tops)) or "nothing"
                ),
                name=missing,
            ) from None

    def loader(self, fullname, path):
        return _Source(fullname, path, self._builtins)

    def _import(self, name, globals=None, locals=None, fromlist=(), level=0):
        if level == 0 and name.partition(".")[0] in self._tops:
            module = importlib.import_module("{}.{}".format(self.name, name))
            if not fromlist:
                return sys.modules["{}.{}".format(self.name, name.partition(".")[0])]
            return builtins.__import__(module.__name__, globals, locals, fromlist, 0)
        return builtins.__import__(name, globals, locals, fromlist, level)


class _Finder:
    def __init__(self, code):
        self._code = code

    def find_spec(self, fullname, path=None, target=None):
        if not fullname.startswith(self._code.name + "."):
            return None
        details = (
            (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
            (self._code.loader, importlib.machinery.SOURCE_SUFFIXES),
        )
        for folder in path or ():
            spec = importlib.machinery.FileFinder(folder, *details).find_spec(fullname)
            if spec is not None:
                return spec
        return None


class _Source(importlib.machinery.SourceFileLoader):
    """Runs a file with the package's own ``__import__``, and writes no bytecode beside it."""

    def __init__(self, fullname, path, names):
        super().__init__(fullname, path)
        self._names = names

    def exec_module(self, module):
        module.__dict__["__builtins__"] = self._names
        super().exec_module(module)

    def set_data(self, path, data, *, _mode=0o666):
        pass


def add_ops(folder, names):
    """Put a folder of extension modules first on the import path.

    Raises ImportError where one of them is called like something that can be imported already.
    """
    if not names:
        return
    for name in names:
        module = os.path.basename(name).partition(".")[0]
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            found = None
        if found is None and module not in sys.modules:
            continue
        origin = (found.origin if found is not None else None) or module
        if os.path.dirname(os.path.abspath(origin)) != os.path.abspath(folder):
            raise ImportError(
                "the package's custom op {!r} is called like a module that can be imported already ({}): one of them has to be "
                "renamed, for they would be taken for each other".format(os.path.basename(name), origin),
                name=module,
            )
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
