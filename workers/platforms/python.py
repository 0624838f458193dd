"""Python models: a factory that returns a callable taking the inputs.

The source is ``"path/to/file.py:factory"`` or ``"package.module:factory"``. A file is run anew for each load, as a module called like the file,
and finds the modules that lie beside it, as a script does. In a worker the file's folder stays on ``sys.path``. In the caller's own
process (the option `in_process`) it is there only while the model loads, so a module beside the file has to be imported by then, and
models whose folders hold modules of the same name each get their own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import platform
import sys
import threading

from opexec.ipc import wire
from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import check_options


def load(source, options):
    """Import the module or run the file, call the factory, and return the model.

    Raises FileNotFoundError, ModuleNotFoundError, AttributeError (no such factory) or TypeError (it cannot be called without
    arguments, or returned nothing that can be called), and whatever the module and the factory raise.
    """
    check_options("python", options, (), factory=True)
    return Model(made(source, options))


def made(source, options):
    """What the factory that `source` names returned: a callable. For the platforms whose models are made by factories too."""
    place, _, name = source.rpartition(":")
    if place.endswith(".py"):
        with beside(place, stays=not options.get("in_process")) as module:
            return _built(module, name, place)
    return _built(imported(place, name), name, place)


def is_factory(source):
    """Whether a source names a factory, and not a model's file, whatever that is called. For the platforms that take both."""
    return ":" in os.path.basename(source) and not os.path.isfile(source)


class Model(Platform):
    framework = "python"
    version = platform.python_version()

    def __init__(self, call):
        self._call = call

    def bind(self, args, kwargs):
        for name, array in list(enumerate(args)) + list(kwargs.items()):
            if array.dtype.names is not None and wire.extension_name(array.dtype) is not None:
                raise TypeError(
                    "input {!r} is {}; a Python model sees it through ml_dtypes: add ml_dtypes to the environment".format(
                        name, wire.extension_name(array.dtype)
                    )
                )
        return args, kwargs

    def run(self, bound, reserve):
        args, kwargs = bound
        return self._call(*args, **kwargs)


def _built(module, name, place):
    factory = module
    for part in name.split("."):
        try:
            factory = getattr(factory, part)
        except AttributeError:
            raise AttributeError(
                "{} has no {!r}; it defines {}".format(place, name, ", ".join(_defined(module)) or "nothing")
            ) from None
    if not callable(factory):
        raise TypeError(
            "{!r} in {} is of type {}; expected a function that returns the model".format(
                name, place, type(factory).__name__
            )
        )
    _check_takes_nothing(factory, name, place)
    model = factory()
    if not callable(model):
        raise TypeError(
            "{!r} in {} returned an object of type {}; expected a callable that takes the inputs as keywords".format(
                name, place, type(model).__name__
            )
        )
    return model


def _check_takes_nothing(factory, name, place):
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables written in C do not tell
        return
    try:
        signature.bind()
    except TypeError:
        raise TypeError(
            "{!r} in {} takes {}; expected a factory: a function that needs no arguments and returns the model. "
            "If it is the model itself, name a function that returns it".format(name, place, signature)
        ) from None


def _defined(module):
    """Names of the functions and classes that a module itself defines."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    ]


def imported(name, factory):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise  # something that the module itself imports
        raise ModuleNotFoundError(
            "the interpreter {} has no module {!r}: install it in that environment, or give the path of its file, "
            "as in 'path/to/file.py:{}'".format(sys.executable, error.name, factory),
            name=error.name,
        ) from None


# ---- files

_loading = threading.RLock()
_found: set = set()  # names of modules that models' files found beside themselves


@contextlib.contextmanager
def beside(path, stays):
    """Run a file as a module, with its folder first on ``sys.path`` for as long as the context, or for good if it `stays`."""
    if not os.path.isfile(path):
        raise FileNotFoundError("no such file: {}".format(path))
    folder, stem = os.path.dirname(os.path.abspath(path)), os.path.splitext(os.path.basename(path))[0]
    with _loading:
        # What other models found beside their files, and whatever else is called like this file, makes room for the time of the load.
        others = [name for name in _found | {stem} if name in sys.modules and not _lies_in(folder, name)]
        aside = {name: sys.modules.pop(name) for name in others}
        before = set(sys.modules)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()  # the folder may have been listed before its files were written
        try:
            loader = importlib.machinery.SourceFileLoader(stem, path)
            spec = importlib.util.spec_from_loader(stem, loader)
            assert spec is not None  # which it is for other kinds of loader
            module = sys.modules[stem] = importlib.util.module_from_spec(spec)
            try:
                # As a script is run: no bytecode is kept beside the file, none that is stale is taken.
                exec(loader.source_to_code(loader.get_data(path), path), vars(module))
            except BaseException:
                del sys.modules[stem]
                raise
            yield module
        finally:
            if not stays:
                with contextlib.suppress(ValueError):
                    sys.path.remove(folder)
            _found.update(name for name in set(sys.modules) - before if _lies_in(folder, name))
            sys.modules.update(aside)


def _lies_in(folder, name):
    """Whether a module, or the package it is part of, was imported from `folder` itself."""
    top = sys.modules.get(name.partition(".")[0])
    origin = getattr(top, "__file__", None) or "".join(list(getattr(top, "__path__", ()))[:1])
    if os.path.basename(origin).startswith("__init__."):
        origin = os.path.dirname(origin)
    return os.path.dirname(origin) == folder
