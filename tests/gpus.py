"""What needs an NVIDIA GPU: the one thing that even a CI machine may lack (tests/absent.py has all others)."""

from __future__ import annotations

import os

import pytest

from opexec import LoadError
from opexec.machine import devices


def gpu_here() -> bool:
    """Whether `load(..., device="cuda:0")` would find one."""
    try:
        return bool(devices.seen(devices.listed(), os.environ))
    except LoadError:
        return False


#: Decided when tests are collected, before any fixture builds an environment for them.
needs_gpu = pytest.mark.skipif(
    not gpu_here(), reason="needs an NVIDIA GPU, and there is none that this process may use"
)
