"""Keras 2 on TensorFlow 1: the model is a graph already, and a session runs it (tensorflow_session.py)."""

from __future__ import annotations

import tensorflow

from opexec.workers.platforms.keras_model import Signature
from opexec.workers.platforms.tensorflow_session import Model, new_session, tf


def load(keras, options, make):
    """Make the model and return it as a `Platform`; keras.py has the options."""
    graph = tf.Graph()
    session = new_session(graph, options)
    with graph.as_default(), session.as_default():
        keras.backend.set_session(session)
        keras.backend.set_learning_phase(0)  # as training=False: dropout and such are left out of the graph
        model = make()
        keras.backend.get_session()  # gives values to variables that the file has none for
    return GraphModel(keras, model, session)


class GraphModel(Model):
    framework = "keras"

    def __init__(self, keras, model, session):
        signature = Signature(model)
        if signature.names is None:
            raise TypeError(
                "the model does not tell its inputs, so TensorFlow {} has no graph of it: give it an input shape".format(
                    tensorflow.__version__
                )
            )
        super().__init__(session, signature.tensors, dict(enumerate(signature.results)))
        self.version = keras.__version__
        self.inputs, self.outputs = signature.inputs, signature.outputs
        self._signature = signature

    def run(self, bound, reserve):
        return self._signature.unpack(super().run(bound, reserve).values())
