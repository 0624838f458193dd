"""Keras's face: ``from opexec.dropin import keras``, and `env=` where a model is loaded: ``keras.models.load_model(path, env=...)``."""

from ..original import forwarding
from . import models

__all__ = ["models"]

__getattr__ = forwarding(__name__, "keras", "models.load_model")
