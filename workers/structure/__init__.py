"""A model's result as a flat list of arrays and a plain description of how they belong together.

The worker flattens what the model returned, the caller's side builds it again:

    names, leaves, structure = flatten(result)     # leaves: numpy arrays, in depth-first order
    structure.tree                                 # plain data for the wire
    Structure.from_plain(data)                     # the same, checked, on the other side
    unflatten(structure, leaves)                   # the result: same nesting, same scalar types

`tree` has the grammar of the plain data, `structures` says what the leaves are called.
"""

from opexec.workers.structure.building import unflatten
from opexec.workers.structure.flattening import flatten
from opexec.workers.structure.structures import Structure, UnsupportedOutput
from opexec.workers.structure.tree import MAX_DEPTH, MAX_NODES

__all__ = ["MAX_DEPTH", "MAX_NODES", "Structure", "UnsupportedOutput", "flatten", "unflatten"]
