"""Where there can be no more threads for a moment: what was to be done by one is done a little later, or here, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import BatchPolicy, CallTimeout, TensorSpec, WorkerDied
from opexec.sharing import listener
from opexec.sharing.client import attach
from opexec.supervision import watcher
from opexec.supervision.startup import Startup
from tests.loaded import gate, in_thread, source
from tests.models import Gate

__all__ = ["gate"]

PATIENCE = 60.0
STAYS = {"x": np.array([-1.0])}  # at the gate, until it is let on
X = {"x": np.array([3.0])}

#: Have no thread started whose name begins so, so many times; gives the names of those that were refused.
Refuse = Callable[[str, int], list[str]]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    def refuse(name: str, times: int) -> list[str]:
        start, refused = threading.Thread.start, []

        def started(thread: threading.Thread) -> None:
            if thread.name.startswith(name) and len(refused) < times:
                refused.append(thread.name)
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", started)
        return refused

    return refuse


def test_what_has_no_thread_is_done_a_little_later(refuse: Refuse) -> None:
    refused, done = refuse("crowded", 2), []
    came = threading.Event()
    watcher.aside("crowded", lambda *given: (done.append(given), came.set()), 1, 2)
    assert came.wait(PATIENCE) and done == [(1, 2)] and len(refused) == 2


def test_the_watcher_starts_the_next_time(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_watcher", watcher._Watcher())
    refused, due, never = refuse("opexec-watcher", 1), threading.Event(), threading.Event()
    with pytest.raises(RuntimeError):
        watcher.at(time.monotonic(), never.set)
    watcher.at(time.monotonic(), due.set)
    assert due.wait(PATIENCE) and not never.is_set() and len(refused) == 1


def test_calls_that_wait_for_a_worker_need_no_thread_each_for_their_timeouts(gate: Gate) -> None:
    with opexec.load(source("gated_while_loading"), wait_ready=False) as model:
        gate.wait()
        watcher.at(time.monotonic(), lambda: None)  # it has its thread
        before = threading.active_count()
        futures = [model.submit(X, timeout=PATIENCE + number) for number in range(20)]
        assert threading.active_count() == before
        gate.let()
        assert all(future.result(PATIENCE)["x"] == 3 for future in futures)


def test_each_of_them_is_told_when_its_own_timeout_passes(refuse: Refuse) -> None:
    startup, refused = Startup("crowded"), refuse("opexec-late", 2)
    told: list[tuple[int, Any]] = []
    late, last = threading.Event(), threading.Event()
    present = time.monotonic()

    def tell(number: int) -> Callable[[BaseException | None], None]:
        def told_of(error: BaseException | None) -> None:
            told.append((number, error))
            if number == 2:
                late.set()

        return told_of

    startup.when_done(tell(3), present + PATIENCE)
    startup.when_done(lambda error: last.set(), None)
    startup.when_done(tell(1), present)
    startup.when_done(tell(2), present + 0.05)
    assert late.wait(PATIENCE) and len(refused) == 2
    assert [number for number, _ in told] == [1, 2]
    assert all(type(error) is CallTimeout for _, error in told)
    assert not last.is_set() and startup.succeed() and last.is_set()
    assert told[2:] == [(3, None)]


def test_a_stuck_worker_is_killed_all_the_same(gate: Gate, refuse: Refuse) -> None:
    with opexec.load(source("gated"), grace=0.0, restart=False) as model:
        refused = refuse("opexec-grace", 4)
        with pytest.raises(CallTimeout):
            model.submit(STAYS, timeout=0.01).result(PATIENCE)
        with pytest.raises(WorkerDied, match="ran past its deadline"):
            model.infer(X, timeout=PATIENCE)
        assert len(refused) == 4


def test_calls_of_a_batch_that_waited_for_others_are_sent_all_the_same(refuse: Refuse) -> None:
    specs: dict[str, Any] = {
        "inputs": [TensorSpec("x", "float64", ("n",))],
        "outputs": [TensorSpec("y", "float64", ("n",))],
    }
    with opexec.load(source("double"), batch=BatchPolicy(max_size=8, max_delay=0.1), **specs) as model:
        refused = refuse("opexec-batching", 1)
        batcher: Any = model._batcher(None)  # type: ignore[attr-defined]
        batcher._answered, batcher._crowd = time.monotonic(), 3  # there were more calls a moment ago
        future = in_thread(lambda: model.infer(X))
        assert future.result(PATIENCE)["y"] == 6 and len(refused) == 1


def test_the_main_thread_makes_a_batched_call_itself_and_once(gate: Gate, refuse: Refuse) -> None:
    specs: dict[str, Any] = {
        "inputs": [TensorSpec("x", "float64", ("n",))],
        "outputs": [TensorSpec("y", "float64", ("n",))],
    }
    with opexec.load(source("gated"), batch=BatchPolicy(max_size=2, max_delay=0.0), **specs) as model:
        alone = in_thread(lambda: model.infer(STAYS))
        gate.wait()
        refused = refuse("opexec-batching", 1)
        futures = [model.submit(X) for _ in range(3)]
        gate.let()
        assert alone.result(PATIENCE)["y"] == -10 and len(refused) == 1
        assert [future.result(PATIENCE)["y"] for future in futures] == [30, 30, 30]
        stats = model.stats()
        assert stats.in_flight == 0 and stats.batches is not None and stats.batches.calls == 4


def test_a_worker_that_was_replaced_is_ended_here(refuse: Refuse) -> None:
    with opexec.load(source("double"), replicas=2) as model:
        pids = {worker.pid for worker in model.workers}
        refused = refuse("opexec-draining", 2)
        model.restart()
        assert len(refused) == 2 and len(model.workers) == 2
        assert not pids & {worker.pid for worker in model.workers}


def test_a_model_can_be_shared_the_next_time(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPEXEC_RUNTIME", str(tmp_path))
    tmp_path.chmod(0o700)
    assert listener.Listener._current is None
    with opexec.load(source("double"), name="crowded") as model:
        refused = refuse("opexec-sharing", 1)
        with pytest.raises(RuntimeError):
            model.share()
        assert not list(tmp_path.glob("*.sock"))
        with model.share(), attach("crowded", attach_timeout=PATIENCE) as attached:
            assert attached.infer(X)["y"] == 6
        assert len(refused) == 1
