"""Workers are replaced for what they have done or hold: no call fails by that, and none is replaced in vain."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import opexec
from opexec import Model
from opexec.machine.process_memory import private_memory
from opexec.supervision import recycling
from opexec.supervision.recycling import Recycling
from tests.loaded import source

PATIENCE = 60.0
GO = np.array([1.0])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycling, "_LOOK_S", 0.005)
    monkeypatch.setattr(recycling, "_AT_LEAST_S", 0.0)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Waits for so many further looks at the workers."""
    look, looked = Recycling._look, threading.Semaphore(0)

    def counted(self: Recycling) -> None:
        look(self)
        looked.release()

    monkeypatch.setattr(Recycling, "_look", counted)

    def wait(count: int) -> None:
        while looked.acquire(blocking=False):
            pass
        for _ in range(count):
            assert looked.acquire(timeout=PATIENCE), "nobody looks"

    return wait


@pytest.fixture
def growing(tmp_path: Path) -> tuple[str, int]:
    """A model that keeps 2 MiB of each call, up to 120 MiB; and a limit that it comes to half-way."""
    path = tmp_path / "model.py"
    path.write_text(
        "import numpy as np\ndef factory():\n    kept = []\n    def call(x):\n        if len(kept) < 60:\n"
        "            kept.append(np.ones(1 << 18))\n        return {'y': x * 2}\n    return call\n"
    )
    with load(f"{path}:factory") as model:
        return f"{path}:factory", private_memory(model.workers[0].pid or 0) + (60 << 20)


def load(what: str, **arguments: Any) -> Model:
    return opexec.load(what, timeout=PATIENCE, **arguments)


def warnings(model: Model, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Those about the model: threads that see to the end of former tests' workers may still tell of them."""
    told = [one for one in caplog.records if one.levelno >= logging.WARNING]
    return [one.getMessage() for one in told if getattr(one, "model", None) == model.name]


def test_after_max_calls() -> None:
    with load(source("double"), max_calls=50) as model:
        pid = model.workers[0].pid
        while model.workers[0].pid == pid:
            assert model.infer({"x": GO})["y"] == 2
        assert "max_calls=50" in model.workers[0].reason


def test_a_model_that_grows(growing: tuple[str, int]) -> None:
    path, limit = growing
    with load(path, max_memory=limit) as model:
        while model.workers[0].restarts < 2:
            assert model.infer({"x": GO})["y"] == 2
        assert f"bytes of private memory (max_memory={limit})" in model.workers[0].reason


def test_one_that_has_only_just_come_goes_on(
    growing: tuple[str, int], looks: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recycling, "_AT_LEAST_S", 1000.0)
    path, limit = growing
    with load(path, max_memory=limit) as model:
        while private_memory(model.workers[0].pid or 0) <= limit:
            assert model.infer({"x": GO})["y"] == 2
        looks(5)
        assert model.workers[0].restarts == 0


def test_a_model_that_grows_by_the_calls_of_clients(
    growing: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPEXEC_RUNTIME", str(tmp_path / "runtime"))
    path, limit = growing
    with load(path, name="shared", max_memory=limit) as model, model.share():
        with opexec.attach("shared", timeout=PATIENCE, retries=5) as attached:
            end = time.monotonic() + PATIENCE
            while not model.workers[0].restarts:
                assert attached.infer({"x": GO})["y"] == 2
                assert time.monotonic() < end, "it is never replaced"
        assert model.stats().calls == 0


def test_calls_of_clients_count_for_max_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEXEC_RUNTIME", str(tmp_path / "runtime"))
    with load(source("double"), name="shared", max_calls=50) as model, model.share():
        with opexec.attach("shared", timeout=PATIENCE, retries=5) as attached:
            for _ in range(20):
                assert model.infer({"x": GO})["y"] == 2
            end = time.monotonic() + PATIENCE
            while not model.workers[0].restarts:
                assert attached.infer({"x": GO})["y"] == 2
                assert time.monotonic() < end, "it is never replaced"
        assert "max_calls=50" in model.workers[0].reason
        assert model.stats().calls == 20


def test_a_limit_that_a_new_worker_exceeds_is_told_once_and_replaces_nobody(
    looks: Callable[[int], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(source("double"), name="fat", max_memory="1MiB") as model:
        pid = model.workers[0].pid
        looks(5)
        assert model.infer({"x": GO})["y"] == 2
        looks(5)
        assert model.workers[0].pid == pid and model.workers[0].restarts == 0
        (told,) = warnings(model, caplog)
        assert "'fat'" in told and f"worker {pid}" in told and "max_memory=1048576" in told
        # In the long run, and only one that has served calls.
        monkeypatch.setattr(recycling, "_IN_VAIN_S", 0.0)
        assert model.infer({"x": GO})["y"] == 2
        while model.workers[0].pid == pid:  # without a call, upon which the next one would go too
            time.sleep(0.001)
        monkeypatch.setattr(recycling, "_IN_VAIN_S", 600.0)
        pid = model.workers[0].pid
        assert model.infer({"x": GO})["y"] == 2
        looks(5)
        assert model.workers[0].pid == pid and len(warnings(model, caplog)) == 1


def test_one_that_has_served_nobody_is_not_replaced_however_long_it_takes(
    looks: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recycling, "_IN_VAIN_S", 0.0)
    with load(source("double"), max_memory="1MiB") as model:
        looks(5)
        assert model.workers[0].restarts == 0


def test_shared_memory_does_not_count(looks: Callable[[int], None], caplog: pytest.LogCaptureFixture) -> None:
    with load(source("total")) as model:
        limit = private_memory(model.workers[0].pid or 0) + (32 << 20)
    with load(source("total"), max_memory=limit) as model:
        x = model.empty("x", (8 << 20,), np.float64)
        x[...] = 1
        assert model.infer({"x": x})["sum"] == 8 << 20
        pid = model.workers[0].pid
        assert psutil.Process(pid).memory_info().rss > limit, "it has touched all of its input"
        looks(5)
        assert model.workers[0].pid == pid and not warnings(model, caplog)


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert private_memory(process.pid) == 0, "nobody has taken its status yet"
    assert private_memory(process.pid) == 0
