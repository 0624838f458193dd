"""scikit-learn estimators: what joblib.dump or pickle.dump wrote, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import platform
import re
import struct
import zlib

import numpy as np
import sklearn

from opexec.workers.platforms import jobs
from opexec.workers.platforms.sklearn import METHODS, OneInput
from opexec.workers.platforms.unreadable import unreadable, with_kind

VERSION = sklearn.__version__

# How pickle writes the attribute in which scikit-learn keeps its version: the key, a note to remember it by, the value's kind and length.
_WRITTEN_BY = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4}|\n?p\d+\n)?(?:X(?P<long>.{4})|\x8c(?P<short>.)|V(?P<line>[^\n]*)\n)",
    re.DOTALL,
)
_OPENERS = {
    b"\x1f\x8b": gzip.decompress,
    b"BZ": bz2.decompress,
    b"\xfd7": lzma.decompress,
    b"]\0": lzma.decompress,
}


class Estimator(OneInput):
    framework = "scikit-learn"
    version = VERSION

    def __init__(self, source, threads):
        try:
            import joblib

            self._estimator = joblib.load(source)
        except Exception as error:  # unpickling runs anything
            raise _unreadable(source, error) from error
        if not self.methods():
            raise TypeError(
                "{} holds an object of type {}, which has none of the methods {}".format(
                    source, type(self._estimator).__name__, ", ".join(METHODS)
                )
            )
        if threads:
            jobs.limit(self._estimator, threads)
            # For good: what it returns would undo it when told to.
            from threadpoolctl import threadpool_limits

            self._limits = threadpool_limits(threads)

    def call(self, method, x):
        result = getattr(self._estimator, method)(x)
        # Only arrays travel.
        return result.toarray() if hasattr(result, "toarray") else result

    def methods(self):
        return [name for name in METHODS if hasattr(self._estimator, name)]


def _unreadable(source, error):
    by = written_by(source)
    told = "" if by is None else " (written by scikit-learn {})".format(by)
    reader = "scikit-learn {} (Python {}, numpy {})".format(
        VERSION, platform.python_version(), np.__version__
    )
    return unreadable(reader, source + told, with_kind(error, error), "scikit-learn=={}".format(by or "..."))


def written_by(source):
    """The scikit-learn that wrote a pickle, read without running it; None where the file does not tell."""
    with open(source, "rb") as file:
        data = file.read()
    opened = _OPENERS.get(data[:2]) or (zlib.decompress if data[:1] == b"x" else None)
    if opened is not None:
        try:
            data = opened(data)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
            return None
    for found in _WRITTEN_BY.finditer(data):
        if found.group("line") is not None:
            text = found.group("line")
        else:
            size = (
                struct.unpack("<I", found.group("long"))[0]
                if found.group("long")
                else found.group("short")[0]
            )
            text = data[found.end() : found.end() + size]
        if re.match(rb"\d+\.\d+[0-9A-Za-z.+]*$", text):
            return text.decode("ascii")
    return None
