"""What is known of a tree once and for all: the names of its leaves, and whether it is one of the simple ones.

Names are what `Model.infer` calls the leaves. A dict (or named tuple) at the top gives its keys, a tuple or list ``output_0``,
``output_1``, ..., a result that is one leaf ``output``. Deeper levels append ``/`` and the key or position: ``output_0/mask``,
``boxes/1``. None has no name. Two leaves of one name are an error.
"""

from __future__ import annotations

import collections

from opexec.workers.structure.tree import checked, malformed


class UnsupportedOutput(TypeError):
    """A model returned something that cannot travel; the message names the output and its type."""


class Structure:
    """How a result's leaves belong together: hashable, compared by `tree`, and cached, so that equal ones are mostly one object.

    `tree` is plain nested data (the module `tree` has its grammar), `names` are the leaves' names in order.
    """

    __slots__ = ("tree", "names", "flat", "_hash")

    def __init__(self, tree):
        self.tree = tree
        self.names = _leaf_names(tree)
        self._hash = hash(tree)
        #: dict (of str keys), tuple or list if the result is one of these and holds arrays alone, else None. Most results are,
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
        tree = checked(data)
        try:
            return structure_of(tree)
        except UnsupportedOutput as error:
            raise malformed(error) from None


def _flat_type(tree):
    if tree[0] == "dict":
        only_arrays = {*tree[2:]} == {"array"} and all(type(key) is str for key in tree[1])
        return dict if only_arrays else None
    if tree[0] == "tuple" or tree[0] == "list":
        return (tuple if tree[0] == "tuple" else list) if {*tree[1:]} == {"array"} else None
    return None


# ---- names


def top_name(kind, step):
    """What a leaf is called for its key or position in the outermost container, a "dict", "list" or "tuple"."""
    return str(step) if kind == "dict" else f"output_{step}"


def deeper_name(name, step):
    """What it is called one level further down."""
    return f"{name}/{step}"


def _leaf_names(tree):
    names = []
    if isinstance(tree, str):
        if tree != "none":
            names.append("output")
    else:
        kind = "dict" if tree[0] == "namedtuple" else tree[0]
        for step, child in _steps(tree):
            _append_names(child, top_name(kind, step), names)
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
            _append_names(child, deeper_name(name, step), names)


def _steps(tree):
    """Pairs of (key or position, child) of a container's tree."""
    if tree[0] == "dict":
        return zip(tree[1], tree[2:])
    if tree[0] == "namedtuple":
        return zip(tree[2], tree[3:])
    return enumerate(tree[1:])


# ---- structures met before

# A model's results have few structures, so they are kept. One that invents new keys at every call only empties the cache, and
# lists of a new length each time are too large for it before they are a burden.
_MAX_CACHED = 256
_MAX_CACHED_NAMES = 1024
_structures: dict = {}  # tree -> Structure
_flat_structures: dict = {}  # keys of a dict, or (tuple or list, length) -> Structure

#: The `Structure` of a result that was met before and is `flat`, by the keys of the dict or by (tuple or list, length); else None.
flat_structure = _flat_structures.get


def structure_of(tree):
    """The tree's `Structure`. Raises UnsupportedOutput for two leaves of one name."""
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


ONE_ARRAY = Structure("array")
