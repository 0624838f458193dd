"""What the soak (`python -m benchmarks soak`) has found once, made to happen at will."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import opexec
from opexec import RestartPolicy, WorkerDied
from opexec.connection import Connection
from opexec.connection.calls import Call
from opexec.processes.worker import WorkerProcess
from opexec.supervision.policies import Crashes
from tests.attaching import no_idle_clients, runtime
from tests.loaded import source

__all__ = ["no_idle_clients", "runtime"]


@pytest.mark.parametrize("retries", [0, 1])
def test_a_submitted_call_that_no_worker_had_begun_is_never_made_without_its_inputs(retries: int) -> None:
    """They are the caller's again: it fails, unless a copy was kept because it may be repeated."""
    with opexec.load(source("double"), retries=retries) as model:
        pid = model.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        futures = [model.submit({"x": np.ones(3)}) for _ in range(3)]
        os.kill(pid, signal.SIGKILL)
        for future in futures:
            if retries:
                assert future.result(60)["y"].tolist() == [2, 2, 2]
            else:
                with pytest.raises(WorkerDied, match="while idle"):
                    future.result(60)
        assert model.infer({"x": np.ones(3)}, timeout=60)["y"].tolist() == [2, 2, 2]


def test_a_coroutine_that_is_cancelled_as_its_deadline_passes() -> None:
    """The worker's late answer is one that is expected, and the worker not broken."""

    async def main(model: opexec.Model) -> None:
        call = asyncio.ensure_future(model.infer_async({"x": np.ones(3)}, timeout=0.05))
        connection = model._link.connection  # type: ignore[attr-defined]
        while not connection.pending:
            await asyncio.sleep(0)
        while connection.pending:  # until its deadline has passed; the coroutine has not been told yet
            connection.expire(next(iter(connection.pending.values())))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    with opexec.load(source("double"), grace=None) as model:
        model.infer({"x": np.ones(3)})
        pid = model.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        asyncio.run(main(model))
        os.kill(pid, signal.SIGCONT)
        for _ in range(3):
            assert model.infer({"x": np.ones(3)}, timeout=60)["y"].tolist() == [2, 2, 2]
        assert model.workers[0].pid == pid


def test_a_shared_worker_that_died_keeps_nothing(runtime: Path) -> None:
    """Though nobody looks at the counts of its clients."""
    with opexec.load(source("double"), name="shared") as model, model.share("shared"):
        for _ in range(3):
            with opexec.attach("shared") as attached:
                attached.infer({"x": np.ones(3)})
                del attached
            model.restart()
        gc.collect()
        mine = [one for one in gc.get_objects() if type(one) is WorkerProcess and one.name == "shared"]
        assert len(mine) == 1


def test_any_number_of_crashes_can_be_counted() -> None:
    crashes = Crashes(
        RestartPolicy(max_restarts=10_000, window=1e9, backoff=0.01, max_backoff=0.2, jitter=0.0)
    )
    assert [crashes.count() for _ in range(3000)][-1] == 0.2


@pytest.mark.parametrize("way, step", [("infer", "send"), ("infer_async", "try_send"), ("submit", "send")])
def test_a_worker_that_goes_just_before_a_call_is_sent_to_it(
    way: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call goes to the next one: no worker has begun it."""
    calls = {
        "infer": lambda model: model.infer({"x": np.ones(3)}),
        "infer_async": lambda model: asyncio.run(model.infer_async({"x": np.ones(3)})),
        "submit": lambda model: model.submit({"x": np.ones(3)}).result(60),
    }
    with opexec.load(source("double")) as model:
        pid = model.workers[0].pid
        assert pid is not None
        send = getattr(Connection, step)

        def late(self: Connection, call: Call) -> bool:
            monkeypatch.undo()
            os.kill(pid, signal.SIGKILL)
            self.bury()
            return bool(send(self, call))

        monkeypatch.setattr(Connection, step, late)
        assert calls[way](model)["y"].tolist() == [2, 2, 2]
        assert model.workers[0].pid != pid
