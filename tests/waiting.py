"""Waiting for what no event tells of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: In seconds; what takes longer never comes.
PATIENCE = 60.0


def until(condition: Callable[[], Any]) -> None:
    """Return once it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never comes"
        time.sleep(0.002)
