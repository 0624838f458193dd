"""A model's result as a flat list of arrays and a plain description of how they belong together.

The worker flattens what the model returned, the caller's side builds it again:

    names, leaves, structure = flatten(result)     # leaves: numpy arrays, in depth-first order
    structure.tree                                 # plain data for the wire
    Structure.from_plain(data)                     # the same, checked, on the other side
    unflatten(structure, leaves)                   # the result: same nesting, same scalar types

A tree is one of

    "array"                                        a numpy array
    "bool" "int" "float" "complex" "str" "bytes"   a Python scalar; its leaf is a 0-d array
    "scalar"                                       a numpy scalar; its leaf is a 0-d array
    "none"                                         None; it has no leaf
    ("list", child, ...)   ("tuple", child, ...)
    ("dict", (key, ...), child, ...)               keys are str or int
    ("namedtuple", name, (field, ...), child, ...)

Leaves carry no index: the n-th leaf of the tree, read depth first, is the n-th array. So no tree, whoever wrote it, can name a leaf
twice, leave one out or reach past the end; only their number has to agree.

Names are what `Model.infer` calls the leaves. A dict (or named tuple) at the top gives its keys, a tuple or list ``output_0``,
``output_1``, ..., a result that is one leaf ``output``. Deeper levels append ``/`` and the key or position: ``output_0/mask``,
``boxes/1``. None has no name. Two leaves of one name are an error.
"""

from __future__ import annotations

import collections
import functools
import keyword
from collections.abc import Mapping

import numpy as np
from numpy import ndarray

from opexec.workers.arrays import as_array, bytes_to_array, plain_str, text_to_array

#: Bounds on a tree, on both sides: containers inside containers, and nodes (leaves, None and containers) in all.
MAX_DEPTH = 32
MAX_NODES = 1 << 14

_ACCEPTED = "a model returns arrays, numbers, strings, bytes or None, or tuples, lists and dicts (with str or int keys) of them"


class UnsupportedOutput(TypeError):
    """A model returned something that cannot travel; the message names the output and its type."""


class Structure:
    """How a result's leaves belong together: hashable, compared by `tree`, and cached, so that equal ones are mostly one object.

    `tree` is plain nested data (the module's text has its grammar), `names` are the leaves' names in order.
    """

    __slots__ = ("tree", "names", "flat", "_hash")

    def __init__(self, tree):
        self.tree = tree
        self.names = _leaf_names(tree)
        self._hash = hash(tree)
        #: dict (of str keys), tuple or list if the result is one of these and holds arrays alone, else None. Most results do,
        #: and they are quick to take apart and to build.
        self.flat = _flat_type(tree)

    def __hash__(self):
        return self._hash

    def __eq__(self, other):
        return self is other or (isinstance(other, Structure) and self.tree == other.tree)

    def __repr__(self):
        return f"Structure({self.tree!r})"

    @classmethod
    def from_plain(cls, data):
        """Check a tree that came from the other side (lists stand for tuples) and return its `Structure`.

        Raises ValueError, saying what is wrong, for anything that `flatten` cannot have made.
        """
        tree, _ = _checked(data, MAX_NODES, MAX_DEPTH)
        try:
            return _structure(tree)
        except UnsupportedOutput as error:
            raise ValueError(f"a result's structure is malformed: {error}") from None


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
        return _ONE_ARRAY.names, [result], _ONE_ARRAY
    if kind is dict:
        structure = _flat_structures.get(tuple(result))
        leaves = list(result.values())
    elif kind is tuple or kind is list:
        structure = _flat_structures.get((kind, len(result)))
        leaves = list(result)
    else:
        structure = None
    if structure is not None:
        for leaf in leaves:
            if type(leaf) is not ndarray:
                break
        else:
            return structure.names, leaves, structure

    taken = _Flattening()
    try:
        tree = taken.node(result, 0)
    except _Refused as refused:
        raise UnsupportedOutput(refused.message()) from refused.__cause__
    structure = _structure(tree)
    return structure.names, taken.leaves, structure


def unflatten(structure, leaves):
    """Build the result that `flatten` took apart from a `Structure` and its arrays, in order.

    Lists, tuples, dicts and named tuples are made anew; an "array" leaf is returned as the very object given. Raises ValueError if
    the number of leaves is wrong, or a leaf that stands for a scalar is none.
    """
    if len(leaves) != len(structure.names):
        raise ValueError(f"a result of {len(structure.names)} leaves came with {len(leaves)} arrays")
    flat = structure.flat
    if flat is None:
        return _build(structure.tree, iter(leaves))
    return dict(zip(structure.names, leaves)) if flat is dict else flat(leaves)


# ---- taking apart


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
        name = _top_name(kind, first)
        for _, step in reversed(self.steps[:-1]):
            name = _deeper_name(name, step)
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
            if _can_be_namedtuple(name, fields, len(value)):
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


def _described(value):
    name = type(value).__name__
    return ("an " if name[:1].lower() in "aeiou" else "a ") + name


def _int_to_array(value):
    if -(1 << 63) <= value < 1 << 63:
        return np.array(value, np.int64)
    if 0 <= value < 1 << 64:
        return np.array(value, np.uint64)
    raise _Refused("is an int beyond 64 bits; return it as a float or a str")


# bool before int: it is one.
_PYTHON_SCALARS = (
    ("bool", bool, functools.partial(np.array, dtype=np.bool_)),
    ("int", int, _int_to_array),
    ("float", float, functools.partial(np.array, dtype=np.float64)),
    ("complex", complex, functools.partial(np.array, dtype=np.complex128)),
    ("str", str, text_to_array),
    ("bytes", bytes, bytes_to_array),
)


# ---- names, and the cache of structures


def _top_name(kind, step):
    return str(step) if kind == "dict" else f"output_{step}"


def _deeper_name(name, step):
    return f"{name}/{step}"


def _leaf_names(tree):
    names = []
    if isinstance(tree, str):
        if tree != "none":
            names.append("output")
    else:
        kind = "dict" if tree[0] == "namedtuple" else tree[0]
        for step, child in _steps(tree):
            _append_names(child, _top_name(kind, step), names)
    if len(set(names)) != len(names):
        twice = next(name for name, count in collections.Counter(names).items() if count > 1)
        raise UnsupportedOutput(f"two of the model's outputs are named {twice!r}; give them other keys")
    return tuple(names)


def _append_names(tree, name, names):
    if isinstance(tree, str):
        if tree != "none":
            names.append(name)
    else:
        for step, child in _steps(tree):
            _append_names(child, _deeper_name(name, step), names)


def _steps(tree):
    """Pairs of (key or position, child) of a container's tree."""
    if tree[0] == "dict":
        return zip(tree[1], tree[2:])
    if tree[0] == "namedtuple":
        return zip(tree[2], tree[3:])
    return enumerate(tree[1:])


# A model's results have few structures, so they are kept. One that invents new keys at every call only empties the cache, and
# lists of a new length each time are too large for it before they are a burden.
_MAX_CACHED = 256
_MAX_CACHED_NAMES = 1024
_structures: dict = {}  # tree -> Structure
_flat_structures: dict = {}  # keys of a dict, or (tuple or list, length) -> Structure


def _structure(tree):
    structure = _structures.get(tree)
    if structure is None:
        structure = Structure(tree)
        if len(structure.names) > _MAX_CACHED_NAMES:
            return structure
        if len(_structures) >= _MAX_CACHED:
            _structures.clear()
            _flat_structures.clear()
        _structures[tree] = structure
        if structure.flat is not None:
            key = structure.names if structure.flat is dict else (structure.flat, len(structure.names))
            _flat_structures[key] = structure
    return structure


def _flat_type(tree):
    if tree[0] == "dict":
        only_arrays = {*tree[2:]} == {"array"} and all(type(key) is str for key in tree[1])
        return dict if only_arrays else None
    if tree[0] == "tuple" or tree[0] == "list":
        return (tuple if tree[0] == "tuple" else list) if {*tree[1:]} == {"array"} else None
    return None


_ONE_ARRAY = Structure("array")


# ---- putting together

_LEAVES = frozenset(["array", "scalar"] + [name for name, _, _ in _PYTHON_SCALARS])

# Which kinds of numpy dtype (and Python type) may stand for a Python scalar.
_KINDS = {"bool": "b", "int": "iu", "float": "f", "complex": "c", "str": "UOT", "bytes": "SO"}
_PYTHON_TYPES = {name: python_type for name, python_type, _ in _PYTHON_SCALARS}


def _build(tree, leaves):
    if isinstance(tree, str):
        if tree == "none":
            return None
        leaf = next(leaves)
        return leaf if tree == "array" else _build_scalar(tree, leaf)
    kind = tree[0]
    if kind == "dict":
        return {key: _build(child, leaves) for key, child in zip(tree[1], tree[2:])}
    if kind == "namedtuple":
        return _namedtuple(tree[1], tree[2])(*[_build(child, leaves) for child in tree[3:]])
    items = [_build(child, leaves) for child in tree[1:]]
    return items if kind == "list" else tuple(items)


def _build_scalar(kind, leaf):
    if leaf.ndim != 0:
        raise ValueError(f"a {kind} came as an array of shape {leaf.shape}")
    if kind == "scalar":
        value = leaf[()]
        if type(value) is str:
            return np.str_(value)
        return np.bytes_(value) if type(value) is bytes else value
    value = leaf.item() if leaf.dtype.kind in _KINDS[kind] else None
    if not isinstance(value, _PYTHON_TYPES[kind]):
        raise ValueError(f"a {kind} came as an array of {leaf.dtype}")
    return value


def _can_be_namedtuple(name, fields, size):
    """Whether collections.namedtuple takes them as they are, for that many values."""
    return (
        type(fields) is tuple
        and all(
            type(word) is str and word.isidentifier() and not keyword.iskeyword(word)
            for word in (name,) + fields
        )
        and not any(field.startswith("_") for field in fields)
        and len(set(fields)) == len(fields) == size
    )


@functools.lru_cache(maxsize=64)
def _namedtuple(name, fields):
    return collections.namedtuple(name, fields)


# ---- checking a tree of the other side


def _checked(data, room, depth):
    """The tree in `data` as nested tuples, and what is left of `room` nodes; ValueError if it is no tree."""
    if room <= 0:
        raise _malformed(f"it has more than {MAX_NODES} nodes")
    room -= 1
    if isinstance(data, str):
        if data != "none" and data not in _LEAVES:
            raise _malformed(f"{data[:40]!r} is no kind of leaf")
        return data, room
    if not isinstance(data, (list, tuple)) or not data:
        raise _malformed(f"{data!r:.40} is no node")
    if depth <= 0:
        raise _malformed(f"it is nested more than {MAX_DEPTH} levels deep")
    head = _checked_head(data)
    children = data[len(head) :]
    tree = list(head)
    for child in children:
        subtree, room = _checked(child, room, depth - 1)
        tree.append(subtree)
    return tuple(tree), room


def _checked_head(data):
    """What stands before the children of a container."""
    kind = data[0]
    if kind == "list" or kind == "tuple":
        return (kind,)
    if kind == "dict" and len(data) >= 2 and isinstance(data[1], (list, tuple)):
        keys = tuple(data[1])
        if not all(type(key) in (str, int) for key in keys):
            raise _malformed("a dict's key is neither str nor int")
        _check_count(keys, len(data) - 2)
        return (kind, keys)
    if kind == "namedtuple" and len(data) >= 3 and isinstance(data[2], (list, tuple)):
        name, fields = data[1], tuple(data[2])
        if not _can_be_namedtuple(name, fields, len(data) - 3):
            raise _malformed("a named tuple's name or fields are no identifiers, or do not fit its children")
        return (kind, name, fields)
    raise _malformed(f"{kind!r:.40} is no kind of container")


def _check_count(keys, count):
    if len(keys) != count or len(set(keys)) != count:
        raise _malformed(f"{len(keys)} keys, of which {len(set(keys))} differ, for {count} children")


def _malformed(reason):
    return ValueError(f"a result's structure is malformed: {reason}")
