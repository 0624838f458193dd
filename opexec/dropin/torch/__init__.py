"""torch's face: ``from opexec.dropin import torch``, and `env=` where TorchScript is loaded: ``torch.jit.load(path, env=...)``."""

from ..original import forwarding
from . import jit

__all__ = ["jit"]

__getattr__ = forwarding(__name__, "torch", "jit.load")
