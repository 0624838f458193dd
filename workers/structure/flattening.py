"""Taking a model's result apart into arrays."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy import ndarray

from opexec.workers.arrays import as_array, bytes_to_array, plain_str, text_to_array
from opexec.workers.structure.structures import (
    ONE_ARRAY,
    UnsupportedOutput,
    deeper_name,
    flat_structure,
    structure_of,
    top_name,
)
from opexec.workers.structure.tree import MAX_DEPTH, MAX_NODES, SCALARS, can_be_namedtuple

_ACCEPTED = "a model returns arrays, numbers, strings, bytes or None, or tuples, lists and dicts (with str or int keys) of them"


def flatten(result):
    """Take a model's result apart: ``(names, leaves, structure)``.

    `names` is a tuple of str, `leaves` a list of numpy arrays (views of what the model returned where it returned arrays), one for
    each name. Python's int becomes int64, or uint64 above 2**63 - 1; float and complex float64 and complex128; str and bytes a
    0-d object array. torch tensors are detached and brought to host memory; whatever else has ``__array__`` or ``__dlpack__`` is
    converted by numpy.

    Raises `UnsupportedOutput` for anything else, for more than `MAX_DEPTH` levels or `MAX_NODES` nodes, for an int beyond 64 bits
    and for two leaves of one name.
    """
    kind = type(result)
    if kind is ndarray:
        return ONE_ARRAY.names, [result], ONE_ARRAY
    if kind in _array_kinds:
        array = _array_again(result)
        if array is not None:
            return ONE_ARRAY.names, [array], ONE_ARRAY
    if kind is dict:
        structure = flat_structure(tuple(result))
        leaves = list(result.values())
    elif kind is tuple or kind is list:
        structure = flat_structure((kind, len(result)))
        leaves = list(result)
    else:
        structure = None
    if structure is not None:
        for index, leaf in enumerate(leaves):
            if type(leaf) is not ndarray:
                array = _array_again(leaf)
                if array is None:
                    break
                leaves[index] = array
        else:
            return structure.names, leaves, structure

    taken = _Flattening()
    try:
        tree = taken.node(result, 0)
    except _Refused as refused:
        raise UnsupportedOutput(refused.message()) from refused.__cause__
    structure = structure_of(tree)
    return structure.names, taken.leaves, structure


class _Refused(Exception):
    """Carries a reason up from the leaf at fault, collecting the way to it."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason
        self.steps = []

    def message(self):
        if not self.steps:
            return f"the model's result {self.reason}"
        kind, first = self.steps[-1]
        name = top_name(kind, first)
        for _, step in reversed(self.steps[:-1]):
            name = deeper_name(name, step)
        return f"output {name!r} {self.reason}"


class _Flattening:
    """The leaves met so far and the room left, while a result is walked once, depth first."""

    def __init__(self):
        self.leaves = []
        self.left = MAX_NODES

    def node(self, value, depth):
        self.left -= 1
        if self.left < 0:
            raise UnsupportedOutput(
                f"the model's result holds more than {MAX_NODES} values; return numbers that belong together as one array"
            )
        kind = type(value)
        if kind is ndarray:
            self.leaves.append(value)
            return "array"
        if value is None:
            return "none"
        if kind is dict:
            return self.mapping(value, depth)
        if kind is list:
            return self.sequence("list", value, depth)
        if kind is tuple:
            return self.sequence("tuple", value, depth)
        if isinstance(value, np.generic):
            self.leaves.append(as_array(value))
            return "scalar"
        for name, python_type, to_array in _PYTHON_SCALARS:
            if isinstance(value, python_type):
                self.leaves.append(to_array(value))
                return name
        return self.other(value, depth)

    def other(self, value, depth):
        """Subclasses of the containers, and arrays of other kinds."""
        if isinstance(value, tuple):
            name, fields = type(value).__name__, getattr(value, "_fields", None)
            if can_be_namedtuple(name, fields, len(value)):
                return ("namedtuple", name, fields) + self.children("dict", fields, value, depth)
            return self.sequence("tuple", value, depth)
        if isinstance(value, list):
            return self.sequence("list", value, depth)
        if isinstance(value, dict):
            return self.mapping(value, depth)
        try:
            array = as_array(value)
        except TypeError as error:
            raise _Refused(f"is {_described(value)}: {error}") from error.__cause__
        if array is not None:
            if len(_array_kinds) < _MAX_ARRAY_KINDS:
                _array_kinds.add(type(value))
            self.leaves.append(array)
            return "array"
        if isinstance(value, Mapping):
            return self.mapping(value, depth)
        raise _Refused(f"is {_described(value)}; {_ACCEPTED}")

    def sequence(self, kind, value, depth):
        return (kind,) + self.children(kind, range(len(value)), value, depth)

    def mapping(self, value, depth):
        keys = []
        for key in value:
            if isinstance(key, str):
                key = plain_str(key)
            elif type(key) is not int or not -(1 << 63) <= key < 1 << 64:
                raise _Refused(f"is a dict with the key {key!r}; {_ACCEPTED}")
            keys.append(key)
        return ("dict", tuple(keys)) + self.children("dict", keys, value.values(), depth)

    def children(self, kind, steps, values, depth):
        if depth >= MAX_DEPTH:
            raise UnsupportedOutput(f"the model's result is nested more than {MAX_DEPTH} levels deep")
        trees = []
        for step, value in zip(steps, values):
            try:
                trees.append(self.node(value, depth + 1))
            except _Refused as refused:
                refused.steps.append((kind, step))
                raise
        return tuple(trees)


# Classes whose objects the walk found to be arrays, such as torch's tensors. A model returns few kinds, and to find out is most of the work.
_MAX_ARRAY_KINDS = 64
_array_kinds: set = set()


def _array_again(leaf):
    """The array of an object of a class that had arrays before; None if it is no such thing, or what it is has to be found out."""
    if type(leaf) not in _array_kinds:
        return None
    try:
        return as_array(leaf)
    except TypeError:  # the walk comes upon it again, and says where
        return None


def _described(value):
    name = type(value).__name__
    return ("an " if name[:1].lower() in "aeiou" else "a ") + name


def _int_to_array(value):
    if -(1 << 63) <= value < 1 << 63:
        return np.array(value, np.int64)
    if 0 <= value < 1 << 64:
        return np.array(value, np.uint64)
    raise _Refused("is an int beyond 64 bits; return it as a float or a str")


_TO_ARRAY: dict = {
    "bool": functools.partial(np.array, dtype=np.bool_),
    "int": _int_to_array,
    "float": functools.partial(np.array, dtype=np.float64),
    "complex": functools.partial(np.array, dtype=np.complex128),
    "str": text_to_array,
    "bytes": bytes_to_array,
}
_PYTHON_SCALARS = tuple((name, python_type, _TO_ARRAY[name]) for name, python_type in SCALARS.items())
