"""TensorFlow's face: ``from opexec.dropin import tensorflow as tf``, and `env=` where a model is loaded.

``tf.saved_model.load(folder, env=...)`` and ``tf.keras.models.load_model(path, env=...)``.
"""

from ..original import forwarding
from . import keras, saved_model

__all__ = ["keras", "saved_model"]

__getattr__ = forwarding(__name__, "tensorflow", "saved_model.load and keras.models.load_model")
