"""Arrays of texts: of objects, which are str or bytes, or of one of numpy's own kinds."""

from __future__ import annotations

import numpy as np


def are_texts(dtype):
    """Whether the elements are texts, or objects, which only texts may be."""
    return dtype.kind in "OUST"


def as_objects(array):
    """The same texts as an array of objects."""
    return array if array.dtype.kind == "O" else array.astype(object)


def decoded(value):
    """An array, a text, or nested lists, with str for all texts: bytes are read as UTF-8. What holds no texts is no more than made an array."""
    return _each(value, lambda one: one.decode("utf-8") if isinstance(one, bytes) else one)


def encoded(value):
    """As `decoded`, with bytes for all texts."""
    return _each(value, lambda one: one.encode("utf-8") if isinstance(one, str) else one)


def said_to_be_texts(array):
    """What is said to hold texts: an empty list looks like one of numbers."""
    return array if array.size else array.astype(object)


def _each(value, convert):
    array = np.asarray(value)
    if not are_texts(array.dtype):
        return array
    # From lists to objects at once: numpy's own kinds drop zeros at the end of a text.
    array = as_objects(array) if isinstance(value, np.ndarray) else np.array(value, object)
    converted = np.empty(array.shape, object)
    flat = converted.reshape(-1)
    for index, one in enumerate(array.reshape(-1)):
        flat[index] = convert(one)
    return converted
