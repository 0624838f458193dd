"""`tf.keras`: the same models as those of Keras's own face."""

from ...original import forwarding
from . import models

__all__ = ["models"]

__getattr__ = forwarding(__name__, "tensorflow.keras", "models.load_model")
