"""How a result's leaves belong together, as plain data for the wire, and the check of what the other side wrote.

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
"""

from __future__ import annotations

import keyword

#: Bounds on a tree, on both sides: containers inside containers, and nodes (leaves, None and containers) in all.
MAX_DEPTH = 32
MAX_NODES = 1 << 14

#: Python's scalars by what a tree calls them. bool stands before int: it is one.
SCALARS = {"bool": bool, "int": int, "float": float, "complex": complex, "str": str, "bytes": bytes}

_LEAVES = frozenset(["array", "scalar", *SCALARS])


def checked(data):
    """The tree in `data`, which came from the other side (lists stand for tuples), as nested tuples. Raises ValueError if it is none."""
    tree, _ = _checked(data, MAX_NODES, MAX_DEPTH)
    return tree


def malformed(reason):
    """The error for what is no tree that `flatten` can have made."""
    return ValueError(f"a result's structure is malformed: {reason}")


def can_be_namedtuple(name, fields, size):
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


def _checked(data, room, depth):
    """The tree in `data` as nested tuples, and what is left of `room` nodes; ValueError if it is no tree."""
    if room <= 0:
        raise malformed(f"it has more than {MAX_NODES} nodes")
    room -= 1
    if isinstance(data, str):
        if data != "none" and data not in _LEAVES:
            raise malformed(f"{data[:40]!r} is no kind of leaf")
        return data, room
    if not isinstance(data, (list, tuple)) or not data:
        raise malformed(f"{data!r:.40} is no node")
    if depth <= 0:
        raise malformed(f"it is nested more than {MAX_DEPTH} levels deep")
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
            raise malformed("a dict's key is neither str nor int")
        _check_count(keys, len(data) - 2)
        return (kind, keys)
    if kind == "namedtuple" and len(data) >= 3 and isinstance(data[2], (list, tuple)):
        name, fields = data[1], tuple(data[2])
        if not can_be_namedtuple(name, fields, len(data) - 3):
            raise malformed("a named tuple's name or fields are no identifiers, or do not fit its children")
        return (kind, name, fields)
    raise malformed(f"{kind!r:.40} is no kind of container")


def _check_count(keys, count):
    if len(keys) != count or len(set(keys)) != count:
        raise malformed(f"{len(keys)} keys, of which {len(set(keys))} differ, for {count} children")
