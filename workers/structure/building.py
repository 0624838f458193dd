"""Putting a model's result together again."""

from __future__ import annotations

import collections
import functools

import numpy as np

from opexec.workers.structure.tree import SCALARS

# Which kinds of numpy dtype may stand for a Python scalar.
_KINDS = {"bool": "b", "int": "iu", "float": "f", "complex": "c", "str": "UOT", "bytes": "SO"}


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
    if not isinstance(value, SCALARS[kind]):
        raise ValueError(f"a {kind} came as an array of {leaf.dtype}")
    return value


@functools.lru_cache(maxsize=64)
def _namedtuple(name, fields):
    return collections.namedtuple(name, fields)
