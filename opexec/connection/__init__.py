"""The caller's end of one worker, in layers: how it ends, reading, waiting for answers, sending calls."""

from .connection import Connection

__all__ = ["Connection"]
