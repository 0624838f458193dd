"""Keras models, ``.keras``, ``.h5`` and SavedModel folders: Keras 3 on any of its backends, and Keras 2 as part of TensorFlow 1 or 2.

The model is called as ``model(x, training=False)``, compiled once (keras_tensorflow.py and so on, one file a backend). `Model.predict` is not used: it splits its input into
batches of 32, copies them through a data pipeline made anew for each call, and takes milliseconds for that, whatever the model.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import zipfile

from opexec.workers.platforms import endings, python
from opexec.workers.platforms.arguments import check_options
from opexec.workers.platforms.unreadable import unreadable, with_kind

OPTIONS = ("backend", "custom_objects", "threads", "device")
BACKENDS = ("tensorflow", "jax", "torch")


def load(source, options):
    """Load a file that Keras wrote (``.keras``, ``.h5`` or ``.hdf5``), whatever it is called, or the SavedModel folder of a model of Keras 2. Options:

    `backend`: what Keras 3 computes with, ``"tensorflow"``, ``"jax"`` or ``"torch"``; without it, what KERAS_BACKEND in the environment says,
    or else the first of these that is installed.
    `custom_objects`: ``{name: "file.py:object"}`` or ``{name: "package.module:object"}`` for layers and functions that are not Keras's.
    `threads`: how many the backend computes with within one operation. `device`: ``"cpu"`` or ``"cuda:N"``.

    Raises RuntimeError for a file that this version cannot load, ImportError where there is no Keras or no backend.
    """
    check_options("keras", options, OPTIONS, factory=True)
    if not os.path.exists(source):
        raise FileNotFoundError("no such file: {}".format(source))
    keras, backend = _keras(options)
    custom = _custom_objects(options)
    if backend == "tensorflow" and hasattr(importlib.import_module("tensorflow"), "placeholder"):
        backend = "graph"  # TensorFlow 1
    platform = importlib.import_module("opexec.workers.platforms.keras_" + backend)
    return platform.load(keras, options, lambda: _model(keras, source, custom))


def _keras(options):
    """``(module, backend)``: Keras 3 if it is there, else the one in TensorFlow, as that arranges it."""
    wanted = options.get("backend")
    if wanted is not None and wanted not in BACKENDS:
        raise ValueError("the option backend is {!r}; expected one of {}".format(wanted, ", ".join(BACKENDS)))
    if _has_keras_3():
        backend = _chosen_backend(wanted)
        keras = importlib.import_module("keras")
        if keras.backend.backend() != backend:  # it was imported before, in the caller's own process
            raise RuntimeError(
                "keras {} computes with {} in this process, and cannot change to {}: load the model into a process of its own".format(
                    keras.__version__, keras.backend.backend(), backend
                )
            )
        return keras, backend
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            "{} has neither Keras 3 nor TensorFlow: give the model an environment that has one, "
            "Environment(requirements=['keras', 'jax']) or Environment(requirements=['tensorflow'])".format(
                sys.executable
            )
        )
    if wanted not in (None, "tensorflow"):
        raise ValueError(
            "the option backend is {!r}; only Keras 3 has backends other than tensorflow".format(wanted)
        )
    return importlib.import_module("tensorflow").keras, "tensorflow"


def _has_keras_3():
    if os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        return False  # the user wants Keras 2 beside it: the package tf_keras, by tensorflow.keras
    try:
        from importlib import metadata  # novm: Python 3.7 has neither this nor Keras 3

        return int(metadata.version("keras").split(".")[0]) >= 3
    except ImportError:  # no such package; else it is Keras 2, which TensorFlow imports, or something older
        return False


def _chosen_backend(wanted):
    if wanted is None:
        wanted = os.environ.get("KERAS_BACKEND")
    if wanted is None:
        there = [name for name in BACKENDS if importlib.util.find_spec(name) is not None]
        if not there:
            raise ImportError(
                "Keras 3 is here and nothing that it computes with: add one of {} to the environment".format(
                    ", ".join(BACKENDS)
                )
            )
        wanted = there[0]
    if wanted not in BACKENDS:
        raise ValueError("KERAS_BACKEND is {!r}; expected one of {}".format(wanted, ", ".join(BACKENDS)))
    if "keras" not in sys.modules:
        if importlib.util.find_spec(wanted) is None:
            raise ImportError(
                "Keras 3 was to compute with {}, which {} does not have: add it to the environment".format(
                    wanted, sys.executable
                )
            )
        os.environ["KERAS_BACKEND"] = wanted
    return wanted


def _custom_objects(options):
    given = options.get("custom_objects")
    if given is None:
        return None
    if not isinstance(given, dict) or not all(isinstance(one, str) for pair in given.items() for one in pair):
        raise ValueError(
            "the option custom_objects is {!r}; expected {{name: 'file.py:object'}}".format(given)
        )
    found, modules = {}, {}
    for name, place in given.items():
        module, _, attribute = place.rpartition(":")
        if module not in modules:  # a file is run once, and what it registers with Keras is registered once
            modules[module] = _module(module, options)
        if not hasattr(modules[module], attribute):
            raise AttributeError(
                "{} has no {!r}, which the option custom_objects names".format(module, attribute)
            )
        found[name] = getattr(modules[module], attribute)
    return found


def _module(place, options):
    if not place.endswith(".py"):
        return python.imported(place, "object")
    with python.beside(place, stays=not options.get("in_process")) as module:
        return module


def _model(keras, source, custom):
    """The model in a file. Its losses and optimisers are left there: nothing trains it here."""
    folder = os.path.isdir(source)
    path = source
    try:
        with endings.called(source, *_endings(source)) as path:
            model = keras.models.load_model(path, custom_objects=custom, compile=False)
        if folder and not isinstance(model, keras.Model):
            raise TypeError(
                "the SavedModel holds no Keras model; the tensorflow platform calls its signatures"
            )
        return model
    except Exception as error:  # of any kind, from version to version
        reader = "keras {}".format(keras.__version__)
        file, why = source + _writer(source), with_kind(error, error).replace(path, source)
        if folder and int(keras.__version__.split(".")[0]) >= 3:
            advice = "SavedModel folders are Keras 2's."
            raise unreadable(reader, file, why, "tensorflow<2.16", advice=advice) from error
        if zipfile.is_zipfile(source) and int(keras.__version__.split(".")[0]) < 3:
            advice = "Files that end in .keras are Keras 3's."
            raise unreadable(reader, file, why, "keras>=3", "jax", advice=advice) from error
        advice = "If it holds weights alone, build the model in a factory and load 'file.py:factory'."
        raise unreadable(reader, file, why, "keras==...", advice=advice) from error


def _endings(source):
    """What the name of such a file has to end in for Keras to read it; any ending will do for a folder, and for what is no file of Keras's."""
    if os.path.isdir(source):
        return ("",)
    with open(source, "rb") as file:
        head = file.read(8)
    if head == b"\x89HDF\r\n\x1a\n":
        return ".h5", ".hdf5"
    return (".keras",) if head.startswith(b"PK\x03\x04") else ("",)


def _writer(source):
    """What the file says of the version that wrote it."""
    version = None
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                version = json.loads(archive.read("metadata.json").decode()).get("keras_version")
        else:
            import h5py

            with h5py.File(source, "r") as file:
                version = file.attrs.get("keras_version")
    except Exception:  # it is damaged, which the error tells
        pass
    if isinstance(version, bytes):
        version = version.decode("utf-8", "replace")
    return ", which keras {} wrote".format(version) if version else ""
