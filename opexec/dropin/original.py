"""The library that a drop-in module stands for: where the caller has it, what the module does not replace comes from there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def forwarding(here: str, original: str, replaced: str) -> Callable[[str], Any]:
    """The `__getattr__` for the module `here`, which replaces `replaced` (for the message) of the module `original`."""

    def find(name: str) -> Any:
        # Python itself asks modules for names like __path__ and __wrapped__; those are not another module's to answer.
        if name.startswith("__") and name != "__version__":
            raise AttributeError(f"module {here!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(original)
        except ImportError as error:
            raise AttributeError(
                f"module {here!r} has {replaced}; anything else comes from {original!r}, which cannot be imported in the calling "
                f"interpreter ({error}). Install it there, or do without {name!r}"
            ) from error
        try:
            return getattr(module, name)
        except AttributeError as error:
            raise AttributeError(
                f"neither {here!r} (which has {replaced}) nor {original!r} has {name!r}"
            ) from error

    return find
