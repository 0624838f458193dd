"""``test_data.pkl`` of packages, read and written here, in a worker: a pickle runs code when it is read.

The source is the file's path. A call without inputs reads it, and gives ``{"test_input": {...}, "test_output": {...} or None}``; one with
inputs called ``test_input/NAME`` and ``test_output/NAME`` writes it. Files by Python 2 and by any numpy are read.
"""

from __future__ import annotations

import io
import pickle
import platform
import sys

import numpy as np

from opexec.workers.arrays import native
from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import check_options

_PARTS = ("test_input", "test_output")


def load(source, options):
    """A model that reads or writes the file `source`; it need not be there yet."""
    check_options("package_test_data", options, ())
    return TestData(source)


class TestData(Platform):
    framework = "python"
    version = platform.python_version()

    def __init__(self, path):
        self._path = path

    def bind(self, args, kwargs):
        return kwargs

    def run(self, bound, reserve):
        if not bound:
            return _read(self._path)
        parts: dict = {part: {} for part in _PARTS}
        for name, array in bound.items():
            part, _, tensor = name.partition("/")
            # Texts as numpy has them: so every reader takes them.
            parts[part][tensor] = array.astype(str) if array.dtype.kind in "OT" else np.array(array)
        content = {"test_input": parts["test_input"], "test_output": parts["test_output"] or None}
        with open(self._path, "wb") as file:
            pickle.dump(content, file, protocol=2)
        return None


def _read(path):
    with open(path, "rb") as file:
        raw = file.read()
    content = _Unpickler(io.BytesIO(raw), encoding="latin1").load()
    if not isinstance(content, dict) or not isinstance(content.get("test_input"), dict):
        raise ValueError(
            "{} holds {}; expected a dict with the dicts 'test_input' and 'test_output'".format(
                path, type(content).__name__
            )
        )
    return {part: _arrays(content.get(part)) for part in _PARTS}


def _arrays(tensors):
    if not tensors:
        return None if tensors is None else {}
    return {str(name): _array(value) for name, value in tensors.items()}


def _array(value):
    array = np.asarray(value)
    if array.dtype.kind == "S":  # text, for Python 2
        array = np.char.decode(array, "utf-8")
    return array.astype(object) if array.dtype.kind == "U" else native(array)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        old, new = "numpy.core", "numpy._core"
        if module.startswith(new) and new not in sys.modules:
            module = old + module[len(new) :]
        elif module.startswith(old) and new in sys.modules:
            module = new + module[len(old) :]
        return super().find_class(module, name)
