"""``test_data.pkl`` of packages, read and written here, in a worker, and of `package_pickle`'s types only: a pickle can run any code.

The source is the file's path. A call reads it, and gives ``{"test_input": {...}, "test_output": {...} or None}``; with the option `write` one
whose inputs are called ``test_input/NAME`` and ``test_output/NAME`` writes it. The option `bytes` names the tensors, in the same way, whose
values are bytes; all others are texts where they are not numbers.
"""

from __future__ import annotations

import pickle
import platform

import numpy as np

from opexec.workers.arrays import native
from opexec.workers.platforms import Platform, package_pickle
from opexec.workers.platforms.arguments import check_options
from opexec.workers.platforms.texts import are_texts, decoded, encoded, said_to_be_texts

_PARTS = ("test_input", "test_output")


def load(source, options):
    """A model that reads or writes the file `source`; it need not be there yet."""
    check_options("package_test_data", options, ("bytes", "write"))
    return TestData(source, frozenset(options.get("bytes") or ()), options.get("write", False))


class TestData(Platform):
    framework = "python"
    version = platform.python_version()

    def __init__(self, path, bytes_tensors, writes):
        self._path = path
        self._writes = writes
        self._bytes = bytes_tensors

    def bind(self, args, kwargs):
        return kwargs

    def run(self, bound, reserve):
        if not self._writes:
            return self._read()
        parts: dict = {part: {} for part in _PARTS}
        for name, array in bound.items():
            part, _, tensor = name.partition("/")
            parts[part][tensor] = _written(array)
        content = {"test_input": parts["test_input"], "test_output": parts["test_output"] or None}
        with open(self._path, "wb") as file:
            pickle.dump(content, file, protocol=2)
        return None

    def _read(self):
        content = package_pickle.read(self._path)
        content = _keyed(content) if isinstance(content, dict) else content
        if not isinstance(content, dict) or not isinstance(content.get("test_input"), dict):
            raise ValueError(
                "{} holds {}; expected a dict with the dicts 'test_input' and 'test_output'".format(
                    self._path, type(content).__name__
                )
            )
        return {part: self._arrays(part, content.get(part)) for part in _PARTS}

    def _arrays(self, part, tensors):
        if not tensors:
            return None if tensors is None else {}
        return {
            name: said_to_be_texts(encoded(value))
            if "{}/{}".format(part, name) in self._bytes
            else _array(value)
            for name, value in _keyed(tensors).items()
        }


def _written(array):
    if array.dtype.kind not in "OT":
        return np.array(array)
    texts = array.astype(object)
    if any(isinstance(one, bytes) for one in texts.reshape(-1)):
        return texts  # as objects: numpy's own bytes drop trailing zeros
    as_numpy = texts.astype(str)  # so every reader takes them
    return as_numpy if (as_numpy.astype(object) == texts).all() else texts  # but it drops trailing zeros too


def _keyed(tensors):
    """With names as texts: Python 2's come as bytes."""
    return {
        name.decode("utf-8") if isinstance(name, bytes) else str(name): value
        for name, value in tensors.items()
    }


def _array(value):
    array = decoded(value)
    return array if are_texts(array.dtype) else native(array)
