"""Reading a pickle of numpy arrays and plain values, and of nothing else: the pickle names what it is made of, and only what is listed here is found.

A name that is not listed is an error, before anything of it is imported or called. Files by Python 2, and by numpy 1 and 2, are read.
"""

from __future__ import annotations

import io
import pickle
import sys

# Under the names of numpy 1; numpy 2 has `core` as `_core`.
_ALLOWED = {
    "numpy": ("ndarray", "dtype", "str_", "bytes_", "unicode_", "string_"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "_codecs": ("encode",),  # how protocols before 3 say bytes
    "collections": ("OrderedDict",),
    "builtins": ("bytes", "bytearray", "complex"),
}
#: The dtypes of ml_dtypes, whose arrays name their elements' type.
_EXTENSIONS = "ml_dtypes"
_OLD, _NEW = "numpy.core", "numpy._core"
# Names that are gone from numpy 2 -> what they were.
_RENAMED = {("numpy", "unicode_"): "str_", ("numpy", "string_"): "bytes_"}


def read(path):
    """The object in a file, of what is listed only. What Python 2 wrote as ``str`` comes as bytes, for it may be either.

    Raises `pickle.UnpicklingError`, naming the file and what it asks for, for anything else; ValueError for a file that is no pickle.
    """
    with open(path, "rb") as file:
        raw = file.read()
    reader = _Reader(io.BytesIO(raw), path)
    try:
        return reader.load()
    except pickle.UnpicklingError as error:
        if str(path) in str(error):
            raise
        raise pickle.UnpicklingError("{} is no pickle that can be read: {}".format(path, error)) from None
    except Exception as error:  # a broken pickle fails anywhere in pickle and numpy
        raise ValueError(
            "{} is no pickle that can be read: {}: {}".format(path, type(error).__name__, error)
        ) from error


class _Reader(pickle.Unpickler):
    def __init__(self, file, path):
        super().__init__(file, encoding="bytes")
        self._path = path

    def find_class(self, module, name):
        if module == "__builtin__":  # Python 2's, which pickle itself translates in its protocols only
            module = "builtins"
        inside = module == _NEW or module.startswith(_NEW + ".")
        known = _OLD + module[len(_NEW) :] if inside else module
        if name not in _ALLOWED.get(known, ()) and not _is_extension(module, name):
            raise pickle.UnpicklingError(
                "{} asks for {}.{}, which is refused: test data are numpy arrays, numbers, texts and bytes, in dicts and lists. "
                "Write them anew from such values".format(self._path, module, name)
            )
        if known.startswith(_OLD):
            module = _NEW + known[len(_OLD) :] if _NEW in sys.modules else known
        return super().find_class(module, _RENAMED.get((module, name), name))

    def persistent_load(self, pid):
        raise pickle.UnpicklingError(
            "{} refers to {!r} outside of itself, which is refused".format(self._path, pid)
        )


def _is_extension(module, name):
    """Whether it is the type of an element: a class of ml_dtypes that numpy knows as a scalar."""
    if module != _EXTENSIONS or "." in name:
        return False
    import numpy as np

    try:
        import ml_dtypes
    except ImportError:
        return False
    found = getattr(ml_dtypes, name, None)
    return isinstance(found, type) and issubclass(found, np.generic)
