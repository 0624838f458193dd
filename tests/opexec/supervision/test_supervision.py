"""What becomes of a model whose worker dies, is stuck, has done enough or has too much to do: nothing hangs, and nothing is lost in silence."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import (
    CallTimeout,
    Model,
    ModelClosed,
    Overloaded,
    RestartPolicy,
    SpecError,
    Supervisor,
    WorkerDied,
)
from opexec.connection import Connection
from opexec.isolated import IsolatedModel
from opexec.supervision import watcher
from opexec.supervision.policies import Crashes
from tests.loaded import in_thread, source
from tests.models import Gate
from tests.refused_threads import refuse_twice
from tests.waiting import PATIENCE, until

#: Each way to call a model that gives its input back; all give that.
WAYS: list[Callable[[Model], Any]] = [
    lambda model: model.infer({"x": GO})["output"],
    lambda model: model(GO),
    lambda model: model.submit({"x": GO}).result(PATIENCE)["output"],
    lambda model: asyncio.run(model.infer_async({"x": GO}))["output"],
]
STOP, GO = np.array([-1.0]), np.array([1.0])
AT_ONCE = RestartPolicy(max_restarts=50, backoff=0.0)


def load(factory: str, **arguments: Any) -> Model:
    return opexec.load(source(factory), timeout=PATIENCE, **arguments)


def kill(pid: int | None) -> None:
    """Kill a process and wait for its end."""
    assert pid is not None
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)


# ---- restarting


def test_an_idle_death_is_seen_without_a_call_and_healed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "opexec.supervisor")
    with load("echo", name="one") as model:
        x = model.empty("x", (1000,), np.float64)
        x[...] = 7
        first = model.workers[0]
        assert (first.state, first.reason, first.restarts) == ("ready", "loaded", 0)
        kill(first.pid)
        until(lambda: model.workers[0].restarts)
        second = model.workers[0]
        assert second.state == "ready" and second.pid != first.pid and second.since >= first.since
        assert "SIGKILL" in second.reason and model.stats().calls == 0
        assert (model.infer({"x": x})["x"] == 7).all()
        assert model.stats().bytes_copied_in == 0, "the array of the old worker's time travels as it is"
    told = [(one.state, one.worker) for one in told_of("one", caplog)]  # type: ignore[attr-defined]
    assert [state for state, _ in told if state != "restarting"] == [
        "loading",
        "ready",
        "ready",
        "stopped",
    ]
    assert ("ready", first.pid) in told and ("ready", second.pid) in told


def told_of(model: str, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the log says of a model: threads that see to the end of former tests' workers may still tell of those."""
    return [one for one in caplog.records if getattr(one, "model", None) == model]


def test_no_call_waits_for_a_worker_that_nobody_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: told.append(hook.exc_value))
    with load("echo", name="fault") as model:
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "close", lambda *arguments: 1 / 0)
            kill(model.workers[0].pid)
            with pytest.raises(ZeroDivisionError):
                model.infer({"x": GO})
            until(lambda: told)
        assert model.workers[0].state == "failed" and isinstance(told[0], ZeroDivisionError)
        model.restart()
        assert model.infer({"x": GO})["x"] == GO


def test_a_dead_worker_is_replaced_though_there_was_no_thread_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = refuse_twice(monkeypatch, "opexec-restarting-crowded")
    with load("echo", name="crowded") as model:
        kill(model.workers[0].pid)
        assert model.infer({"x": GO})["x"] == GO
    assert len(refused) == 2


def test_calls_made_meanwhile_wait_or_fail(gate: Gate) -> None:
    for policy in ("wait", "fail"):
        with opexec.load(
            source("gated_while_loading"), while_restarting=policy, wait_ready=False, timeout=PATIENCE
        ) as model:
            gate.wait()
            gate.let()
            model.wait_ready()
            kill(model.workers[0].pid)
            gate.wait()  # the new worker is loading
            assert model.workers[0].state == "restarting" and not model.ready
            if policy == "fail":
                with pytest.raises(WorkerDied, match="SIGKILL"):
                    model.infer({"x": GO})
                with pytest.raises(WorkerDied):
                    model.submit({"x": GO})
                gate.let()
                model.wait_ready()
            else:
                with pytest.raises(CallTimeout, match="restarting"):
                    model.infer({"x": GO}, timeout=0.01)
                future = model.submit({"x": GO})
                cancelled = model.submit({"x": GO})
                assert cancelled.cancel() and cancelled.cancelled()
                waiting = in_thread(lambda model=model: model(GO))
                gate.let()
                assert future.result(PATIENCE)["x"] == 1 and waiting.result(PATIENCE) == 1
            assert model(GO) == 1


def test_a_crash_loop_ends_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    fine = "def factory():\n    return lambda x: x\n"
    path.write_text(fine)
    policy = RestartPolicy(max_restarts=2, window=100, backoff=0.001)
    with opexec.load(f"{path}:factory", name="loop", restart=policy, timeout=PATIENCE) as model:
        path.write_text("def factory():\n    raise RuntimeError('not today')\n")
        kill(model.workers[0].pid)
        until(lambda: model.workers[0].state == "failed")
        for _ in range(2):
            with pytest.raises(
                opexec.LoadError, match=r"3 crashes within 100 s, and max_restarts is 2(.|\n)*not today"
            ):
                model(GO)
        with pytest.raises(opexec.LoadError, match="not today"):
            model.restart()
        path.write_text(fine)
        model.restart()
        assert model(GO) == 1 and model.workers[0].state == "ready"


def test_what_load_raises_it_does_not_log_as_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "opexec.supervisor")
    with pytest.raises(opexec.LoadError, match="the weights are gone"):
        load("raising_factory", name="raising")
    assert [(one.state, one.levelname) for one in told_of("raising", caplog)] == [  # type: ignore[attr-defined]
        ("loading", "INFO"),
        ("failed", "INFO"),
    ]


def test_a_policy_waits_longer_each_time_and_forgets() -> None:
    clock = [0.0]
    crashes = Crashes(
        RestartPolicy(max_restarts=4, window=10, backoff=1, max_backoff=3, jitter=0), lambda: clock[0]
    )
    assert [crashes.count() for _ in range(5)] == [0, 1, 2, 3, None]
    clock[0] = 11
    assert crashes.count() == 0
    slow = Crashes(RestartPolicy(max_restarts=2, window=10, backoff=0), lambda: clock[0])
    for expected in (0, 0, None):
        assert slow.count() == expected
        clock[0] += 100
        slow.pass_over(100)  # for so long the next one was loading, and it failed
    clock[0] += 11
    assert slow.count() == 0
    jittered = Crashes(RestartPolicy(backoff=1, jitter=0.5))
    jittered.count()
    assert 1 <= (jittered.count() or 0) <= 1.5


def test_calls_in_flight_fail_once_unless_they_may_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    mark = tmp_path / "mark"
    path.write_text(
        f"import os\ndef factory():\n    def call(x):\n        if not os.path.exists({str(mark)!r}):\n"
        f"            open({str(mark)!r}, 'w').close()\n            os._exit(3)\n        return x\n    return call\n"
    )
    for retries in (0, 1):
        with opexec.load(f"{path}:factory", retries=retries, restart=AT_ONCE, timeout=PATIENCE) as model:
            for way in WAYS:
                mark.unlink(missing_ok=True)
                if not retries:
                    with pytest.raises(WorkerDied) as caught:
                        way(model)
                    assert (caught.value.exit_code, caught.value.stage) == (3, "call")
                assert way(model) == 1


def test_a_call_is_repeated_as_often_as_was_said_and_no_more(tmp_path: Path) -> None:
    path, tries = tmp_path / "model.py", tmp_path / "tries"
    path.write_text(
        f"import os\ndef factory():\n    def call(x):\n        with open({str(tries)!r}, 'a') as file:\n            file.write('.')\n"
        "        os._exit(3)\n    return call\n"
    )
    with opexec.load(f"{path}:factory", retries=1, restart=AT_ONCE, timeout=PATIENCE) as model:
        for way in WAYS:
            tries.unlink(missing_ok=True)
            with pytest.raises(WorkerDied):
                way(model)
            assert tries.read_text() == ".."


# ---- deadlines and cancelling


@pytest.mark.parametrize("restart", [True, False])
def test_a_stuck_worker_is_killed_after_its_grace(gate: Gate, restart: bool) -> None:
    with load("gated", grace=0.05, restart=restart) as model:
        pid = model.workers[0].pid
        with pytest.raises(CallTimeout):
            model.infer({"x": STOP}, timeout=0.05)
        if restart:
            until(lambda: model.workers[0].restarts)
            assert "ran past its deadline by" in model.workers[0].reason
            assert model.infer({"x": GO})["y"] == 10 and model.workers[0].pid != pid
        else:
            until(lambda: model.workers[0].state == "stopped")
            with pytest.raises(WorkerDied, match="ran past its deadline"):
                model.infer({"x": GO})


def test_a_worker_that_answers_late_is_not_stuck_though_nobody_reads(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = threading.Event()
    catch_up = Connection.catch_up

    def watched(connection: Connection) -> bool:
        # Its answer lies there, and this is the first to read since the deadline.
        gate.let()
        until(lambda: connection.channel.consumer.words[connection.channel.consumer.tail_at] > 0)
        try:
            return catch_up(connection)
        finally:
            judged.set()

    monkeypatch.setattr(Connection, "catch_up", watched)
    with load("gated", grace=0.05) as model:
        pid = model.workers[0].pid
        with pytest.raises(CallTimeout):
            model.infer({"x": STOP}, timeout=0.05)
        assert judged.wait(PATIENCE)
        assert model.infer({"x": GO})["y"] == 10
        assert model.workers[0].pid == pid and model.workers[0].restarts == 0


def test_a_time_far_off_does_not_end_the_watcher() -> None:
    happened = threading.Event()
    far = [watcher.at(time.monotonic() + seconds, lambda: None) for seconds in (1e7, float("inf"))]
    watcher.at(time.monotonic() + 0.01, happened.set)
    assert happened.wait(PATIENCE)
    again = threading.Event()
    watcher.at(time.monotonic() + 0.01, again.set)
    assert again.wait(PATIENCE)
    for one in far:
        one.cancel()


def test_a_callback_of_a_call_that_waited_for_the_model_may_call_it() -> None:
    answers: list[Any] = []
    done = threading.Event()
    with load("echo", wait_ready=False, inputs=[{"name": "x", "dtype": "float64", "shape": [1]}]) as model:

        def call_again(future: Any) -> None:
            answers.append(future.exception())
            answers.append(model.submit({"x": GO}).result(PATIENCE))
            done.set()

        model.submit({"x": np.zeros(3)}).add_done_callback(call_again)
        assert done.wait(PATIENCE)
    assert isinstance(answers[0], SpecError) and answers[1]["x"] == GO


def test_a_call_that_a_stopped_worker_does_not_even_hear_ends_at_its_deadline() -> None:
    names = [f"input {number}" for number in range(10_000)]
    with load("echo", grace=None) as model:
        pid = model.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            # What tells of such inputs is longer than what the control socket holds.
            for size in range(1, 4):
                with pytest.raises(CallTimeout):
                    model.infer(dict.fromkeys(names, np.zeros(size, "u1")), timeout=0.05)
        finally:
            os.kill(pid, signal.SIGCONT)
        outputs = model.infer(dict.fromkeys(names, np.full(3, 7, "u1")))
        assert len(outputs) == len(names) and all(value.tolist() == [7] * 3 for value in outputs.values())
        assert model.workers[0].pid == pid


def test_what_a_worker_answered_before_it_died_is_good_for_who_meets_its_death_when_sending() -> None:
    with load("echo", restart=RestartPolicy(max_restarts=0)) as model:
        assert isinstance(model, IsolatedModel)
        (link,) = model.replicas.serving()
        connection = link.connection
        answered, _ = model._prepare(link, ("x",), [GO], 0, None)
        connection.send(answered)
        consumer = connection.channel.consumer
        until(lambda: consumer.words[consumer.tail_at] > 0)
        unheard, _ = model._prepare(link, ("of other", "names"), [GO, GO], 0, None)
        assert link.watch is not None
        link.watch.cancel()  # nobody else is to see the death
        kill(link.process.pid)
        with pytest.raises(WorkerDied):
            connection.send(unheard)
        assert answered.failure is None
        assert [view.tolist() for view in connection.arrays(answered)] == [[1.0]]
        connection.calls.abandon(unheard)


def test_a_stopped_worker_is_killed_after_its_grace() -> None:
    with load("echo", grace=0.05) as model:
        model(GO)
        os.kill(model.workers[0].pid or 0, signal.SIGSTOP)
        with pytest.raises(CallTimeout):
            model.infer({"x": GO}, timeout=0.05)
        assert model.infer({"x": GO})["x"] == 1


def test_a_call_that_waits_behind_a_live_one_kills_nobody(gate: Gate) -> None:
    with load("gated", grace=0.01) as model:
        long = model.submit({"x": STOP})
        gate.wait()
        pid = model.workers[0].pid
        for _ in range(2):
            with pytest.raises(CallTimeout):
                model.infer({"x": GO}, timeout=0.03)
        assert not long.done()
        gate.let()
        assert long.result(PATIENCE)["y"] == -10 and model.workers[0].pid == pid


def test_a_cancelled_call_is_nobodys(gate: Gate) -> None:
    with load("gated") as model:
        first = model.submit({"x": STOP})
        gate.wait()
        second, third = model.submit({"x": GO * 2}), model.submit({"x": GO * 3})
        assert second.cancel() and second.cancelled() and second.cancel()
        assert first.cancel()
        gate.let()
        assert third.result(PATIENCE)["y"] == 30 and not third.cancel()
        with pytest.raises(CancelledError):
            first.result(PATIENCE)
        assert model.infer({"x": GO})["y"] == 10
        del third
        model.infer({"x": GO})
        assert model.stats().in_flight == 0 and model.stats().blocks_held <= 1


def test_a_cancelled_task_is_nobodys_either(gate: Gate) -> None:
    async def main(model: Model) -> None:
        first = asyncio.create_task(model.infer_async({"x": STOP}))
        await asyncio.to_thread(gate.wait)
        second, third = (asyncio.create_task(model.infer_async({"x": GO * n})) for n in (2, 3))
        await asyncio.sleep(0)
        for one in (first, second):
            one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one
        gate.let()
        assert (await third)["y"] == 30
        assert (await model.infer_async({"x": GO}))["y"] == 10

    with load("gated", max_pending=3) as model:
        asyncio.run(main(model))
        assert model.stats().in_flight == 0 and model.stats().blocks_held <= 1


# ---- replicas


def test_replicas_work_side_by_side_and_one_death_disturbs_no_other(gate: Gate) -> None:
    with load("gated", replicas=3) as model:
        assert len({one.pid for one in model.workers}) == 3
        stuck = [model.submit({"x": STOP}) for _ in range(2)]
        gate.wait(2)
        assert sorted(one.state for one in model.workers) == ["busy", "busy", "ready"]
        for _ in range(20):  # all go to the third
            assert model.infer({"x": GO})["y"] == 10
        victim = next(one for one in model.workers if one.state == "busy")
        kill(victim.pid)
        until(lambda: sum(one.restarts for one in model.workers))
        gate.let()
        outcomes = [one.exception(PATIENCE) for one in stuck]
        assert sorted(type(one).__name__ for one in outcomes) == ["NoneType", "WorkerDied"]
        assert model.infer({"x": GO})["y"] == 10


def test_a_rolling_restart_fails_no_call() -> None:
    with load("double", replicas=2) as model:
        stop = threading.Event()

        def work() -> int:
            done = 0
            while not stop.is_set():
                assert model.infer({"x": np.array([done])})["y"] == 2 * done
                done += 1
            return done

        workers = [in_thread(work) for _ in range(3)]
        before = {one.pid for one in model.workers}
        model.restart()
        until(lambda: len(model.workers) == 2)
        assert not before & {one.pid for one in model.workers}
        stop.set()
        assert all(one.result(PATIENCE) > 0 for one in workers)


def test_a_replaced_worker_drains_and_is_seen_to_until_its_calls_are_done(gate: Gate) -> None:
    with load("gated", replicas=2) as model:
        stuck = model.submit({"x": STOP})
        gate.wait()
        (busy,) = (one for one in model.workers if one.state == "busy")
        model.restart()
        # The other one had nothing to finish, and goes.
        until(lambda: len(model.workers) == 3)
        *places, leaving = model.workers
        assert [one.state for one in places] == ["ready", "ready"]
        assert (leaving.state, leaving.pid) == ("draining", busy.pid)
        assert leaving.reason == "another worker has its place" and leaving.since >= busy.since
        assert [model.infer({"x": GO})["y"] for _ in range(4)] == [10] * 4, "calls go past it"
        gate.let()
        assert stuck.result(PATIENCE)["y"] == -10
        until(lambda: [one.state for one in model.workers] == ["ready", "ready"])


def test_busy_since_is_when_that_very_call_was_first_looked_at(gate: Gate) -> None:
    with load("gated") as model:
        seen = []
        for _ in range(2):
            call = model.submit({"x": STOP})
            gate.wait()
            looks = [model.workers[0] for _ in range(2)]
            assert [one.state for one in looks] == ["busy", "busy"]
            assert looks[0].since == looks[1].since, "each look at one call tells the same"
            seen.append(looks[0].since)
            gate.let()
            assert call.result(PATIENCE)["y"] == -10
        assert seen[0] < seen[1]


def test_a_full_model_refuses_or_has_callers_wait(gate: Gate) -> None:
    with load("gated", max_pending=2) as model:
        first = model.submit({"x": STOP})
        gate.wait()
        second = model.submit({"x": GO})
        for call in (lambda: model.infer({"x": GO}), lambda: model(GO), lambda: model.submit({"x": GO})):
            with pytest.raises(Overloaded, match="max_pending=2"):
                call()
        assert second.cancel(), "a cancelled call gives its place up"
        third = model.submit({"x": GO})
        gate.let()
        assert first.result(PATIENCE)["y"] == -10 and third.result(PATIENCE)["y"] == 10
        assert model(GO)["y"] == 10
    with load("gated", max_pending=1, when_full="wait") as model:
        first = model.submit({"x": STOP})
        gate.wait()
        with pytest.raises(CallTimeout, match="max_pending=1"):
            model.infer({"x": GO}, timeout=0.01)
        later = in_thread(lambda: model.infer({"x": GO}))
        gate.let()
        assert later.result(PATIENCE)["y"] == 10


# ---- the end, and another beginning


def test_a_drained_model_finishes_its_calls(gate: Gate) -> None:
    model = load("gated")
    call = model.submit({"x": STOP})
    gate.wait()
    closing = in_thread(lambda: model.close(drain=True))
    until(lambda: _refuses(model))
    assert not closing.done()
    gate.let()
    assert call.result(PATIENCE)["y"] == -10
    closing.result(PATIENCE)
    model = load("gated")
    call = model.submit({"x": STOP})
    gate.wait()
    model.close(drain=True, timeout=0.01)
    with pytest.raises(ModelClosed):
        call.result(PATIENCE)


@pytest.mark.parametrize("in_time", [True, False])
def test_a_drained_model_in_this_process_does_so_too(gate: Gate, in_time: bool) -> None:
    model = load("gated", isolation="none")
    running, queued = model.submit({"x": STOP}), model.submit({"x": GO})
    gate.wait()
    closing = in_thread(lambda: model.close(drain=True, timeout=None if in_time else 0.01))
    if in_time:
        until(lambda: not model.ready)
        with pytest.raises(ModelClosed):
            model.submit({"x": GO})
        assert not closing.done()
        gate.let()
        closing.result(PATIENCE)
        assert queued.result(0)["y"] == 10
    else:
        closing.result(PATIENCE)
        gate.let()
        with pytest.raises(ModelClosed):
            queued.result(PATIENCE)
    assert running.result(PATIENCE)["y"] == -10, "nothing can end a call in this process"
    assert model.workers[0].state == "stopped"


def _refuses(model: Model) -> bool:
    try:
        model.submit({"x": GO}).cancel()  # one that was not refused waits behind the call at the gate
    except ModelClosed:
        return True
    return False


def test_swapping_fails_no_call_and_a_failed_swap_changes_nothing(tmp_path: Path) -> None:
    spec = [{"name": "x", "dtype": "float64", "shape": ["n"]}]
    other = [{"name": "x", "dtype": "float64", "shape": [7]}]
    with load("double", inputs=spec) as model:
        x = model.empty("x", (3,))
        x[...] = 1
        stop = threading.Event()

        def work() -> int:
            done = 0
            while not stop.is_set():
                assert next(iter(model.infer({"x": x}).values())).tolist() in ([2] * 3, [1] * 3)
                done += 1
            return done

        calls = [in_thread(work) for _ in range(2)]
        pid = model.workers[0].pid
        with pytest.raises(SpecError, match="the model takes 7 alone"):
            model.swap(source("echo"), inputs=other)
        with pytest.raises(opexec.LoadError, match="the weights are gone"):
            model.swap(source("raising_factory"))
        with pytest.raises(TypeError, match="replicas"):
            model.swap(source("echo"), replicas=2)
        assert model.workers[0].pid == pid and len(model.workers) == 1
        model.swap(source("echo"), inputs=spec)
        assert list(model.infer({"x": x})) == ["x"] and model.workers[0].pid != pid
        assert len(model.workers) == 1, "the old one is gone"
        stop.set()
        assert all(one.result(PATIENCE) for one in calls)
        kill(model.workers[0].pid)
        assert list(model.infer({"x": x})) == ["x"], "what is restarted is the new model"


def test_a_supervisor_passes_it_on_and_shows_its_workers() -> None:
    with Supervisor() as supervisor:
        supervisor.load(source("echo"), name="one", replicas=2, load_timeout=PATIENCE)
        supervisor.load_all(
            {"two": {"source": source("echo"), "restart": False, "load_timeout": float("inf")}},
            progress=lambda *_: None,
        )
        assert {name: len(found) for name, found in supervisor.workers().items()} == {"one": 2, "two": 1}
    assert all(one.state == "stopped" for found in supervisor.workers().values() for one in found)


@pytest.mark.parametrize(
    "argument",
    [
        {"restart": 1},
        {"retries": -1},
        {"retries": 1, "restart": False},
        {"grace": -1},
        {"load_timeout": 0},
        {"load_timeout": True},
        {"load_timeout": "long"},
        {"while_restarting": "hope"},
        {"replicas": 0},
        {"replicas": True},
        {"max_pending": 0},
        {"when_full": "drop"},
        {"max_calls": 0},
        {"max_memory": "much"},
    ],
)
def test_arguments_that_make_no_sense(argument: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="expected|retries is 1"):
        opexec.load(source("echo"), **argument)
