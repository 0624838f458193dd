"""Loading the models of tests/models.py, in the caller's interpreter and in one of another version."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from opexec import BuildError, Environment
from tests.absent import absent
from tests.models import Gate

MODELS = Path(__file__).with_name("models.py")

#: For `interpreter`, as parameters of a test.
PYTHONS = ["caller's", pytest.param("3.7", marks=pytest.mark.slow)]


def source(factory: str) -> str:
    """What `opexec.load` takes for one of the models."""
    return f"{MODELS}:{factory}"


def interpreter(python: str) -> str | None:
    """What `opexec.load` takes as `env`: None, or the path of an interpreter of that version with numpy, which CI must have."""
    return None if python == "caller's" else _built(python)


def in_thread(call: Callable[[], Any]) -> Future[Any]:
    """The outcome of a call made in a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@functools.cache
def _built(version: str) -> str:
    try:
        return str(Environment(version, ["numpy"]).resolve())
    except BuildError as error:
        absent(f"Python {version} with numpy: {error}")


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The gate at which the models that are loaded meanwhile wait."""
    monkeypatch.setenv("OPEXEC_TEST_GATE", str(tmp_path))
    gate = Gate(tmp_path)
    yield gate
    gate.close()
