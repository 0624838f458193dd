"""Checks that platforms share: of the options they are given, and of a call's inputs against the names that a model has for them."""

from __future__ import annotations

import re

from opexec.workers.platforms.dtypes import name_of


def check_options(platform, options, known, factory=False):
    """Raise ValueError for an option that is not among the names in `known`, and for `threads` or `device` of no known form.

    A platform whose models come from a `factory` takes ``in_process`` too, by which `opexec.load` says that it runs in the caller's own process.
    """
    unknown = sorted(set(options) - set(known) - ({"in_process"} if factory else set()))
    if unknown:
        raise ValueError(
            "the {} platform knows no option {!r}; it knows {}".format(
                platform, unknown[0], ", ".join(known) or "none"
            )
        )
    threads = options.get("threads")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise ValueError("the option threads is {!r}; expected a positive number of threads".format(threads))
    cuda_index(options)


def cuda_index(options):
    """The number of the GPU that the option `device` asks for; None for the CPU, which is also what is meant without it."""
    device = options.get("device")
    if device in (None, "cpu"):
        return None
    found = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if found is None:
        raise ValueError("the option device is {!r}; expected 'cpu', 'cuda' or 'cuda:0'".format(device))
    return int(found.group(1) or 0)


def inputs_by_name(names, args, kwargs, optional=frozenset()):
    """``{name: array}`` in the order of `names`, for arrays by position and by name. Raises TypeError unless each has just one.

    Those in `optional` need have none.
    """
    arrays = dict(zip(names, args))
    if len(args) > len(names) or not kwargs.keys().isdisjoint(arrays):
        raise TypeError(
            "{} inputs by position and {} by name; the model's inputs are {}".format(
                len(args), sorted(kwargs), names
            )
        )
    arrays.update(kwargs)
    taken = {name: arrays[name] for name in names if name in arrays}
    if len(taken) != len(arrays) or (
        len(taken) != len(names) and not optional.issuperset(set(names) - taken.keys())
    ):
        raise TypeError("the model's inputs are {}; received {}".format(names, sorted(arrays)))
    return taken


def check_dtype(name, dtype, expected):
    """Raise TypeError unless a dtype is the one that is called `expected`."""
    given = name_of(dtype)
    if given != expected:
        raise TypeError(
            "input {!r} is {}; the model takes {}: convert it first".format(name, given, expected)
        )


def check_shape(name, shape, expected):
    """Raise ValueError if a shape does not fit the expected one, whose sizes may be None, as may the whole."""
    if expected is None:
        return
    if len(shape) != len(expected) or any(
        size is not None and size != given for given, size in zip(shape, expected)
    ):
        raise ValueError(
            "input {!r} has the shape {}; the model takes {}".format(
                name, list(shape), [any_size if any_size is not None else "any" for any_size in expected]
            )
        )
