"""An entry point in a package's ``0/code`` as a factory, which is what the platforms torch and jax load."""

from __future__ import annotations

import contextlib
import itertools
import sys
import types

from opexec.workers.platforms import packaged_python

_numbers = itertools.count()


@contextlib.contextmanager
def factory(contents):
    """``"module:factory"`` of a module that is there for as long as the context."""
    name = "opexec_entry_{}".format(next(_numbers))
    module = types.ModuleType(name)

    def make():
        return packaged_python.made(contents)

    module.__dict__["make"] = make
    sys.modules[name] = module
    try:
        yield name + ":make"
    finally:
        del sys.modules[name]
