"""A worker whose model has taken all descriptors: what needs another one is a typed error that says so, and then all is right again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import LoadError, Model, ProtocolError, RestartPolicy
from tests.faults.test_limits import source
from tests.loaded import PYTHONS, interpreter

LARGE = 1 << 20
#: To take in a segment: the descriptor that comes, a copy, and the mapping's own, which stays.
NEEDED = 3


def call(model: Model, left: int, count: int = 10, size: int = 10) -> None:
    """A call whose answer is right; meanwhile, and afterwards, the worker may open `left` more files, or as many as ever (-1)."""
    inputs: dict[str, Any] = {"left": np.array(left), "count": np.array(count), "x": np.ones(size)}
    results = model.infer(inputs, timeout=60)
    assert results["sum"] == size
    np.testing.assert_array_equal(results["y"], np.arange(count))


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Any:
    restart = RestartPolicy(backoff=0.001)
    with opexec.load(
        source("hoarding"), open_files=64, env=interpreter(request.param), restart=restart
    ) as model:
        yield model


@pytest.mark.parametrize("left", range(NEEDED))
@pytest.mark.parametrize("model", PYTHONS, indirect=True)
@pytest.mark.parametrize("large", ["input", "output"])
def test_room_that_cannot_be_taken_in(model: Model, large: str, left: int) -> None:
    pid = model.workers[0].pid
    call(model, left)
    for _ in range(3):  # in the room there is
        call(model, left, count=20, size=30)
    assert model.workers[0].pid == pid
    try:
        call(model, left, **{"count" if large == "output" else "size": LARGE})
    except ProtocolError as error:
        assert re.search("gave up: .*([Tt]oo many open files|may open no more files)", str(error))
    else:  # the worker gave up before it was sent the call, which the next one has answered
        assert large == "input"
    call(model, -1, LARGE, LARGE)
    assert model.workers[0].pid != pid and model.workers[0].restarts == 1
    call(model, 0)


@pytest.mark.parametrize("model", PYTHONS, indirect=True)
def test_room_that_just_fits_and_room_once_there_are_descriptors(model: Model) -> None:
    pid = model.workers[0].pid
    call(model, NEEDED)
    call(model, NEEDED, size=LARGE)
    call(model, NEEDED, count=LARGE)
    call(model, 0)
    call(model, -1)  # it has closed its files
    call(model, -1, size=4 * LARGE)
    call(model, -1, count=4 * LARGE)
    assert model.workers[0].pid == pid


def test_a_client_for_whom_there_are_no_descriptors_is_told_so_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPEXEC_RUNTIME", str(tmp_path / "runtime"))
    let_in: list[bool] = []
    with opexec.load(source("hoarding"), open_files=64, name="full") as model, model.share():
        pid = model.workers[0].pid
        while not (let_in and let_in[-1]):
            left = len(let_in)
            call(model, left)
            try:
                opexec.attach("full", attach_timeout=60).close()
                let_in.append(True)
            except LoadError as error:
                assert error.stage == "attach"
                assert re.search("file descriptors|open files|open no more files", str(error)), left
                let_in.append(False)
            call(model, left)
            assert left < 40
        assert not any(let_in[:NEEDED])
        # One that is let in is not disturbed by one that is not.
        call(model, -1)
        with opexec.attach("full") as attached:
            call(attached, 0)
            with pytest.raises(LoadError, match="file descriptors"):
                opexec.attach("full", attach_timeout=60)
            call(attached, -1)
            with opexec.attach("full") as other:
                call(other, -1)
                call(attached, -1)
        assert (model.workers[0].pid, model.workers[0].restarts) == (pid, 0)
