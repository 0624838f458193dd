"""TensorFlow models, by TensorFlow 1 and 2: frozen graphs (a GraphDef, ``.pb``) and SavedModel folders.

Both become a graph in a session of `tf.compat.v1`, in every version: a session reads arrays where they lie, and hands out its results
without copying them (tensorflow_session.py). Which tensors of the graph a call feeds and fetches, tensorflow_graph.py and
tensorflow_saved_model.py find out.
"""

from __future__ import annotations

import importlib
import os

from opexec.workers.platforms.arguments import check_options

OPTIONS = ("inputs", "outputs", "init_ops", "signature", "tags", "threads", "device")


def load(source, options):
    """Load a GraphDef (a file) or a SavedModel (a folder, or the ``saved_model.pb`` in it). Options:

    `inputs`, `outputs`: ``{name: node}`` or a list of nodes, with or without ``":0"``; for a GraphDef, by default the placeholders that
    the outputs need, and the ends of the graph; for a SavedModel, what its signature says.
    `init_ops`: operations to run once, in this order, before the first call: a list of their names.
    `signature`, `tags`: which signature of a SavedModel is called (by default ``"serving_default"``, or the only one), and the
    tags of the graph in it (by default ``["serve"]``, or the only graph).
    `threads`: how many TensorFlow computes with within one operation; operations then run one after the other. In a process that had a
    session before, that one's threads stay.
    `device`: ``"cpu"`` or ``"cuda:N"``.

    Raises ValueError for options that do not fit the model, naming what it has, TypeError for inputs that are no tensors of a kind
    that can be given, RuntimeError for what this version of TensorFlow cannot load.
    """
    check_options("tensorflow", options, OPTIONS)
    if os.path.basename(source) in ("saved_model.pb", "saved_model.pbtxt"):
        source = os.path.dirname(os.path.abspath(source))
    if os.path.isdir(source):
        return importlib.import_module("opexec.workers.platforms.tensorflow_saved_model").load(
            source, options
        )
    for name in ("signature", "tags"):
        if options.get(name):
            raise ValueError(
                "the option {} is for SavedModel folders; {} is a GraphDef, whose inputs and outputs are named by the options "
                "inputs and outputs".format(name, source)
            )
    return importlib.import_module("opexec.workers.platforms.tensorflow_graph").load(source, options)
