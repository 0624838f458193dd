"""The one place that imports msgpack, and the one way it is used.

A worker whose environment has no msgpack, or one below 1.0 (which returns bytes for text and knows other arguments), uses a copy
that the caller lays on its path under a name of its own, so that the model's ``import msgpack`` keeps its meaning.
"""

from __future__ import annotations

import importlib


def _find():
    try:
        module = importlib.import_module("msgpack")
        if module.version >= (1, 0):
            return module
    except (ImportError, AttributeError):
        pass
    return importlib.import_module("opexec_msgpack")


_msgpack = _find()

#: Which msgpack is in use, as text: it is part of the handshake.
VERSION = ".".join(str(part) for part in _msgpack.version[:3])


def pack(message):
    """Encode a dict of plain values (None, bool, int, float, str, bytes, list, dict) as msgpack bytes."""
    return _msgpack.packb(message, use_bin_type=True)


def unpack(data):
    """Decode msgpack bytes; raises ValueError for anything malformed. Lists come back as lists, keys as they were."""
    return _msgpack.unpackb(data, raw=False, strict_map_key=False)
