"""`tf.keras.models.load_model`, of a model in a worker."""

from ...keras.models import Model, load_model
from ...original import forwarding

__all__ = ["Model", "load_model"]

__getattr__ = forwarding(__name__, "tensorflow.keras.models", "load_model")
