"""Files of jax.export: a function as StableHLO, with the shapes and dtypes of what it takes and gives."""

from __future__ import annotations

import jax

from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import inputs_by_name
from opexec.workers.platforms.exported import output_specs, spec
from opexec.workers.platforms.jax import Bound, placed
from opexec.workers.platforms.unreadable import first_line, unreadable, with_kind

_JAX = "jax {}".format(jax.__version__)


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
        self.inputs = [spec(name, *_told(aval)) for name, aval in zip(self._names, exported.in_avals)]
        self.outputs = output_specs(
            [_told(aval) for aval in exported.out_avals],
            lambda leaves: jax.tree_util.tree_unflatten(exported.out_tree, leaves),
        )

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
        raise unreadable(_JAX, source, "jax.export came with jax 0.4.30", "jax>=0.4.30") from None
    try:
        with open(source, "rb") as file:
            return export.deserialize(bytearray(file.read()))
    except (
        Exception
    ) as error:  # the format's reader checks little, so anything can come of a file that is none
        advice = "It should hold what jax.export's serialize() gave."
        raise unreadable(
            _JAX, source, with_kind(error, first_line(error)), "jax==...", advice=advice
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


def _told(aval):
    return aval.dtype.name, aval.shape
