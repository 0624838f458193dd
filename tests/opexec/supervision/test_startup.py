"""`load(..., wait_ready=False)`: the model is there at once, and whoever calls it waits until it is loaded."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import CallTimeout, LoadError, Model, ModelClosed, OpexecError, WorkerDied
from opexec.processes import leaving
from opexec.supervision.link import Link
from opexec.supervision.places import Places
from opexec.supervision.startup import Startup
from tests.loaded import in_thread, source
from tests.models import Gate
from tests.refused_threads import refuse_twice
from tests.worker_processes import workers

PATIENCE = 60


def load(factory: str, **arguments: object) -> Model:
    return opexec.load(source(factory), wait_ready=False, **arguments)  # type: ignore[arg-type]


def test_it_is_there_at_once_and_the_first_calls_wait(gate: Gate) -> None:
    with load("gated_while_loading", name="late") as model:
        assert not model.ready and model.name == "late" and model.platform == "python"
        assert model.workers[0].state in ("starting", "loading") and model.stats().calls == 0
        gate.wait()
        assert repr(model) in ("<Model 'late': python, starting>", "<Model 'late': python, loading>")
        (worker,) = model.workers
        assert worker.state == "loading" and worker.pid == workers()[0].pid and worker.numpy
        x = np.arange(5)
        answers = {
            "infer": in_thread(lambda: model.infer({"x": x})["x"].tolist()),
            "call": in_thread(lambda: model(x).tolist()),
            "inputs": in_thread(lambda: model.inputs),
            "empty": in_thread(lambda: model.empty("x", (2,), "i8").shape),
            "ready": in_thread(lambda: model.wait_ready(PATIENCE)),
        }
        future = model.submit({"x": x})
        assert not future.done() and not model.ready
        gate.let()
        assert future.result(PATIENCE)["x"].tolist() == x.tolist()
        assert {way: answer.result(PATIENCE) for way, answer in answers.items()} == {
            "infer": x.tolist(),
            "call": x.tolist(),
            "inputs": None,
            "empty": (2,),
            "ready": None,
        }
        assert model.ready and model.workers[0].state == "ready"


def test_restart_while_loading_waits_for_that(gate: Gate) -> None:
    with load("gated_while_loading") as model:
        gate.wait()
        first = model.workers[0].pid
        restarted = in_thread(model.restart)
        gate.let()
        gate.wait()
        assert model.workers[0].pid == first, "until the next is ready"
        gate.let()
        restarted.result(PATIENCE)
        assert model.workers[0].pid != first and model(np.ones(1)) == 1


def test_submit_takes_its_inputs_when_it_is_called(gate: Gate) -> None:
    with load("gated_while_loading") as model:
        x = np.zeros(3, np.int64)
        futures = []
        for number in range(20):
            x[...] = number
            futures.append(model.submit({"x": x}))
        x[...] = -1
        gate.let()
        for number, future in enumerate(futures):
            assert future.result(PATIENCE)["x"].tolist() == [number] * 3
        assert model.stats().calls == 20


def test_an_event_loop_goes_on_meanwhile(gate: Gate) -> None:
    async def main() -> None:
        call = asyncio.ensure_future(model.infer_async({"x": np.arange(3)}))
        given_up = asyncio.ensure_future(model.infer_async({"x": np.arange(3)}))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        with pytest.raises(CallTimeout):
            await model.infer_async({"x": np.arange(3)}, timeout=0.01)
        assert not call.done()
        gate.let()
        assert (await call)["x"].tolist() == [0, 1, 2]

    with load("gated_while_loading") as model:
        asyncio.run(main())


def test_a_timeout_counts_while_it_is_loading(gate: Gate) -> None:
    with load("gated_while_loading") as model:
        for call in (
            lambda: model.infer({"x": np.zeros(1)}, timeout=0.01),
            lambda: model.submit({"x": np.zeros(1)}, timeout=0.01).result(PATIENCE),
            lambda: model.wait_ready(0.01),
            lambda: model.wait_ready(0),
        ):
            with pytest.raises(CallTimeout, match="was still loading when the timeout passed"):
                call()
        gate.let()
        model.wait_ready()
        assert model(np.ones(1)) == 1
    with load("gated_while_loading", timeout=0.01) as model:
        with pytest.raises(CallTimeout):
            model(np.zeros(1))


FAILURES = [
    ("raising_factory", LoadError, "the weights are gone"),
    ("SIGKILL_while_loading", WorkerDied, "SIGKILL"),
]


@pytest.mark.parametrize(("factory", "kind", "words"), FAILURES)
def test_a_failure_is_raised_by_everything(factory: str, kind: type[OpexecError], words: str) -> None:
    model = load(factory)
    future = model.submit({"x": np.zeros(1)})

    def from_asyncio() -> object:
        return asyncio.run(model.infer_async({"x": np.zeros(1)}))

    seen = []
    for _ in range(2):
        for call in (
            model.wait_ready,
            lambda: model.infer({"x": np.zeros(1)}),
            lambda: model(np.zeros(1)),
            lambda: model.submit({"x": np.zeros(1)}).result(PATIENCE),
            from_asyncio,
            lambda: model.empty("x", (1,), "f4"),
            lambda: model.inputs,
            lambda: future.result(PATIENCE),
        ):
            with pytest.raises(kind, match=words) as caught:
                call()
            seen.append(caught.value)
    assert len({*map(id, seen)}) == len(seen) - 1, "each is a new one, but for the Future's"
    assert not model.ready and model.workers[0].state == "failed"
    assert not workers()
    model.close()
    assert model.workers[0].state == "stopped"


def test_one_that_could_not_be_loaded_can_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import os\ndef factory():\n    assert os.path.exists({!r}), 'not yet'\n    return lambda x: x + 1\n".format(
            str(tmp_path / "weights")
        )
    )
    with opexec.load(f"{tmp_path}/late.py:factory", wait_ready=False) as model:
        with pytest.raises(LoadError, match="not yet"):
            model.wait_ready()
        with pytest.raises(LoadError, match="not yet"):
            model.restart()
        (tmp_path / "weights").touch()
        model.restart()
        assert model.ready and model(np.zeros(1)) == 1


def test_what_is_wrong_with_the_arguments_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        load("echo", threads=0)
    with pytest.raises(LoadError, match="there is no file"):
        opexec.load("gone.py:f", wait_ready=False)
    with (
        load("echo", env="/nonexistent/python") as model,
        pytest.raises(opexec.BuildError, match="/nonexistent"),
    ):
        model.wait_ready()


def test_close_while_loading(gate: Gate) -> None:
    model = load("gated_while_loading")
    future = model.submit({"x": np.zeros(1)})
    gate.wait()
    (worker,) = workers()
    waiting = in_thread(lambda: model(np.zeros(1)))
    model.close()
    for after in (
        lambda: waiting.result(PATIENCE),
        model.wait_ready,
        lambda: model(np.zeros(1)),
        lambda: future.result(PATIENCE),
        lambda: model.inputs,
    ):
        with pytest.raises(ModelClosed, match="is closed"):
            after()
    worker.wait(PATIENCE)
    loading(model)
    assert model.workers[0].state == "stopped" and model.stats().shared_memory == 0
    model.close()


@pytest.mark.parametrize("_", range(10))
def test_close_at_any_moment_of_loading(_: int) -> None:
    model = load("echo")
    threading.Event().wait(_ * 0.02)  # for the variety; nothing below depends on it
    model.close()
    with pytest.raises(ModelClosed):
        model.wait_ready()
    loading(model)
    assert not workers()
    assert model.stats().shared_memory == 0


def loading(model: Model) -> None:
    """Wait for the thread that loads the model."""
    for thread in threading.enumerate():
        if thread.name == f"opexec-loading-{model.name}":
            thread.join(PATIENCE)


def test_calls_that_waited_are_told_though_there_was_no_thread_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = refuse_twice(monkeypatch, "opexec-started-crowded")
    startup, told = Startup("crowded"), threading.Event()
    startup.when_done(lambda error: told.set(), None)
    assert startup.succeed(aside=True)
    assert told.wait(PATIENCE) and len(refused) == 2


def test_close_as_replicas_get_their_places_ends_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, install = threading.Event(), Places.install

    def close_first(places: Places, *arguments: Any, **more: Any) -> Link | None:
        assert loaded.wait(PATIENCE)
        model.close()
        return install(places, *arguments, **more)

    monkeypatch.setattr(Places, "install", close_first)
    model = load("double", name="crowd", replicas=3)
    loaded.set()
    with pytest.raises(ModelClosed):
        model.infer({"x": np.ones(1)})
    for loader in threading.enumerate():
        if loader.name.startswith("opexec-loading-crowd"):
            loader.join(PATIENCE)
    assert not workers()


def test_a_forked_copy_does_not_wait_for_ever(gate: Gate) -> None:
    with load("gated_while_loading") as model:
        gate.wait()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                for call in (
                    lambda: model(np.zeros(1)),
                    model.wait_ready,
                    lambda: model.submit({"x": np.zeros(1)}),
                ):
                    try:
                        call()
                    except OpexecError as error:
                        os.write(write, b"." if "forked this one" in str(error) else b"!")
                model.close()
            finally:
                os._exit(0)
        os.close(write)
        poll = select.poll()
        poll.register(read, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "it hangs"
        os.waitpid(pid, 0)
        assert os.read(read, 10) == b"..."
        os.close(read)
        gate.let()
        assert model(np.ones(1)) == 1


def test_ctrl_c_while_waiting_leaves_it_loading(gate: Gate) -> None:
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with load("gated_while_loading") as model:

            def interrupt() -> None:
                gate.wait()
                signal.pthread_kill(main, signal.SIGUSR1)

            interrupted = in_thread(interrupt)
            with pytest.raises(KeyboardInterrupt):
                model(np.zeros(1))
            interrupted.result(PATIENCE)
            gate.let()
            assert model(np.ones(1)) == 1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_program_may_end_while_it_loads(tmp_path: Path) -> None:
    program = f"import opexec\nmodel = opexec.load({source('gated_while_loading')!r}, wait_ready=False)\nprint('end')"
    gate = Gate(tmp_path)
    environment = {**os.environ, "OPEXEC_TEST_GATE": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    gate.close()
    assert ended.returncode == 0 and ended.stdout == "end\n" and "Traceback" not in ended.stderr


def test_in_process_it_has_no_effect() -> None:
    with opexec.load(source("echo"), isolation="none", wait_ready=False) as model:
        assert model.ready
        model.wait_ready(0)
    assert not model.ready
    with pytest.raises(ModelClosed):
        model.wait_ready()


def test_at_the_exit_no_daemon_thread_is_told_that_there_is_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Held(Exception):
        """Instead of a sleep that ends with the process."""

    def hold() -> None:
        raise Held

    monkeypatch.setattr(leaving, "hold", hold)
    startup = Startup("model")
    startup.fail(OpexecError("the interpreter is exiting"))
    told: list[object] = []
    with pytest.raises(Held):
        startup.wait()
    with pytest.raises(Held):
        startup.when_done(told.append, None)
    assert not told
