"""Files of jax.export: a function as StableHLO, with the shapes and dtypes of what it takes and gives."""

from __future__ import annotations

import jax
import numpy as np

from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import inputs_by_name
from opexec.workers.platforms.jax import Bound, placed
from opexec.workers.structure import flatten


class Exported(Platform):
    """The file has no names for what was passed by position: it is called ``input``, or ``input_0``, ``input_1`` and so on, as outputs are.

    What was passed by name has that name. Arrays within lists and dicts have the way to them after it: ``input_0/mask``.
    """

    framework = "jax"
    version = jax.__version__
    inputs: list

    def __init__(self, source, device):
        exported = _read(source)
        if device.platform not in [
            {"cuda": "gpu", "rocm": "gpu"}.get(one, one) for one in exported.platforms
        ]:
            raise RuntimeError(
                "{} was exported for {}, and the device is a {}: export it with platforms=[...], or load it with "
                "device=...".format(source, ", ".join(exported.platforms), device.platform)
            )
        self.aligned = device.platform == "cpu"
        self._device = device
        self._tree = exported.in_tree
        self._call = jax.jit(exported.call)
        self._names = _names(exported.in_tree)
        self.inputs = [_spec(name, aval) for name, aval in zip(self._names, exported.in_avals)]
        self.outputs = _output_specs(exported)

    def bind(self, args, kwargs):
        arrays = inputs_by_name(self._names, args, kwargs)
        return Bound([placed(name, arrays[name], self._device) for name in self._names], {})

    def run(self, bound, reserve):
        flat, _ = bound.arguments()
        args, kwargs = jax.tree_util.tree_unflatten(self._tree, flat)
        return self._call(*args, **kwargs)


def _read(source):
    try:
        import flatbuffers  # noqa: F401  # which jax needs for these files alone, and does not install
    except ImportError:
        raise ImportError(
            "jax {} reads {} with the package flatbuffers, which is not there: add it to the model's environment, as in "
            "Environment(requirements=['jax', 'flatbuffers'])".format(jax.__version__, source)
        ) from None
    try:
        from jax import export
    except ImportError:
        raise RuntimeError(
            "jax {} cannot read {}: jax.export came with jax 0.4.30; give the model an environment that has it: "
            "Environment(requirements=['jax>=0.4.30'])".format(jax.__version__, source)
        ) from None
    try:
        with open(source, "rb") as file:
            return export.deserialize(bytearray(file.read()))
    except (
        Exception
    ) as error:  # the format's reader checks little, so anything can come of a file that is none
        raise RuntimeError(
            "jax {} cannot read {}: {}: {} It should hold what jax.export's serialize() gave; if another version wrote it, give the "
            "model an environment that has it: Environment(requirements=['jax==...'])".format(
                jax.__version__, source, type(error).__name__, str(error).strip().partition("\n")[0]
            )
        ) from error


def _names(tree):
    """The names of the leaves of ``(args, kwargs)``, in order."""
    args, kwargs = jax.tree_util.tree_unflatten(tree, list(range(tree.num_leaves)))
    alone = len(args) == 1 and not kwargs and isinstance(args[0], int)
    parts = [("input" if alone else "input_{}".format(index), one) for index, one in enumerate(args)]
    names = {}
    for base, part in parts + list(kwargs.items()):
        for path, leaf in jax.tree_util.tree_flatten_with_path(part)[0]:
            steps = [
                str(getattr(step, "key", getattr(step, "idx", getattr(step, "name", step)))) for step in path
            ]
            names[leaf] = "/".join([base] + steps)
    return [names[index] for index in range(tree.num_leaves)]


def _spec(name, aval):
    return {
        "name": name,
        "dtype": aval.dtype.name,
        "shape": [_dimension(size) for size in aval.shape],
    }


def _dimension(size):
    """A size, the symbol of one that is open, or None where it is computed from others."""
    if isinstance(size, int):
        return size
    text = str(size)
    return text if text.isidentifier() else None


def _output_specs(exported):
    """The outputs' specs, under the names that `workers.structure` gives them."""
    leaves = [np.empty(0) for _ in exported.out_avals]
    try:
        names, _, _ = flatten(jax.tree_util.tree_unflatten(exported.out_tree, leaves))
    except (TypeError, ValueError):  # outputs that cannot travel: the first call says which
        return None
    return [_spec(name, aval) for name, aval in zip(names, exported.out_avals)]
