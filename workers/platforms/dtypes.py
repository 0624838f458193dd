"""Dtypes by the names that specs have for them: numpy's, those of `wire.EXTENSIONS`, and ``"string"`` for texts of any kind."""

from __future__ import annotations

import numpy as np

from opexec.ipc import wire
from opexec.workers.platforms.texts import are_texts


def name_of(dtype):
    return wire.extension_name(dtype) or ("string" if are_texts(dtype) else dtype.name)


def dtype_of(name):
    """The dtype of a name other than ``"string"``."""
    return wire.extension_dtype(name) if name in wire.EXTENSIONS else np.dtype(name)
