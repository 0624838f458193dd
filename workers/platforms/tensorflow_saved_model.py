"""SavedModel folders, written by TensorFlow 1 or 2, through the loader of TensorFlow 1, which both versions have.

The signature gives the names. Inputs and outputs come in the order of their nodes in the graph; TensorFlow 2 writes them sorted by name.
"""

from __future__ import annotations

import os

import tensorflow
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from opexec.workers.platforms.tensorflow_graph import endpoints, initialise, named
from opexec.workers.platforms.tensorflow_session import Model, new_session, tf
from opexec.workers.platforms.unreadable import unreadable

_DEFAULT_TAGS = ["serve"]
_DEFAULT_SIGNATURE = "serving_default"
_INTERNAL = "__saved_model"  # what signatures begin with that are no one's to call


def load(source, options):
    """Load a SavedModel folder; tensorflow.py has the options and the errors."""
    written = _read(source)
    tags = _tags(written, options.get("tags"), source)
    (meta,) = [one for one in written.meta_graphs if set(one.meta_info_def.tags) == set(tags)]
    version = meta.meta_info_def.tensorflow_version
    del written
    named_by_hand = options.get("inputs") is not None or options.get("outputs") is not None
    signature = None if named_by_hand else _signature(meta, options.get("signature"), source)
    graph = tf.Graph()
    session = new_session(graph, options)
    try:
        with graph.as_default():
            tf.saved_model.load(session, tags, source)
    except Exception as error:  # ValueError, KeyError or one of TensorFlow's, from version to version
        told = "{}, which tensorflow {} wrote".format(source, version or "(unknown)")
        raise unreadable(
            "tensorflow {}".format(tensorflow.__version__),
            told,
            str(error),
            "tensorflow=={}".format(version or "..."),
        ) from error
    initialise(session, options.get("init_ops"))
    if signature is None:
        return Model(session, *endpoints(graph, options.get("inputs"), options.get("outputs")))
    return Model(session, _tensors(graph, signature.inputs), _tensors(graph, signature.outputs))


def _read(source):
    """The SavedModel message of a folder."""
    written = saved_model_pb2.SavedModel()
    binary, text = os.path.join(source, "saved_model.pb"), os.path.join(source, "saved_model.pbtxt")
    try:
        if os.path.exists(binary):
            with open(binary, "rb") as file:
                written.ParseFromString(file.read())
        elif os.path.exists(text):
            with open(text) as file:
                text_format.Merge(file.read(), written)
        else:
            raise ValueError("there is no saved_model.pb in {}: it is no SavedModel".format(source))
    except (DecodeError, text_format.ParseError) as error:
        raise RuntimeError(
            "tensorflow {} cannot load {}: its saved_model.pb is damaged ({})".format(
                tensorflow.__version__, source, error
            )
        ) from error
    if not written.meta_graphs:
        raise RuntimeError(
            "tensorflow {} cannot load {}: there is no graph in its saved_model.pb".format(
                tensorflow.__version__, source
            )
        )
    return written


def _tags(written, given, source):
    there = [sorted(one.meta_info_def.tags) for one in written.meta_graphs]
    if given is not None:
        if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) for one in given):
            raise ValueError("the option tags is {!r}; expected a list of tags".format(given))
        wanted = sorted(set(given))
    else:
        wanted = there[0] if len(there) == 1 else _DEFAULT_TAGS
    if wanted not in there:
        raise ValueError("{} has no graph with the tags {}; it has {}".format(source, wanted, there))
    return wanted


def _signature(meta, given, source):
    there = {key: one for key, one in meta.signature_def.items() if not key.startswith(_INTERNAL)}
    callable_ones = sorted(key for key, one in there.items() if one.outputs)
    key = given
    if key is None:
        key = callable_ones[0] if len(callable_ones) == 1 else _DEFAULT_SIGNATURE
    if key not in callable_ones:
        if not callable_ones:
            raise ValueError(
                "{} has no signature that could be called: save the model with one (tf.saved_model.save(model, path, signatures=...)), or name "
                "the nodes by the options inputs and outputs".format(source)
            )
        raise ValueError(
            "{} has no signature {!r}; it has {}: choose one by the option signature".format(
                source, key, ", ".join(callable_ones)
            )
        )
    return there[key]


def _tensors(graph, entries):
    """``{name: tf.Tensor}`` for the inputs or outputs of a signature."""
    for name, entry in entries.items():
        if not entry.name:
            raise TypeError("{!r} is a sparse or composite tensor; only plain ones can be given".format(name))
    found = (
        named(graph, "signature", {name: entry.name for name, entry in entries.items()}) if entries else {}
    )
    places = {operation: place for place, operation in enumerate(graph.get_operations())}
    order = sorted(found, key=lambda name: (places[found[name].op], found[name].value_index, name))
    return {name: found[name] for name in order}
