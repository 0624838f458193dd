"""What a test needs and a machine may lack: there the test is skipped, but a CI machine has to have it. (A GPU alone it may lack: gpus.py.)"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def in_ci() -> bool:
    """Whether all that tests need has to be there, and they may take their time: what `.ci/run` says."""
    return os.environ.get("CI") == "true"


def absent(what: str) -> NoReturn:
    """Skip the test, which needs `what`; in CI, fail it."""
    if in_ci():
        pytest.fail(f"a CI machine has to have {what}")
    pytest.skip(f"needs {what}")
