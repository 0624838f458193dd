"""A model that is shared is called by other processes as by its owner, and they are told when it is not there."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import opexec
from opexec.sharing import places
from opexec.sharing.listener import Listener
from tests.attaching import Client
from tests.loaded import source
from tests.models import Gate


@pytest.fixture(scope="module")
def double():
    with opexec.load(source("double"), name="double") as model:
        yield model


def test_owner_and_two_clients_call_at_once_and_get_right_answers(double, client: Callable[[], Client]):
    calls = """
for k in range(30):
    x = np.full((k % 7 + 1, 5), seed + k, float)
    assert np.array_equal(m.infer({"x": x})["y"], x * 2), k
big = np.arange(400_000.0) + seed
futures = [m.submit({"x": big + k}) for k in range(3)]
assert all(np.array_equal(f.result()["y"], (big + k) * 2) for k, f in enumerate(futures))
right = True
"""
    with double.share("two") as share:
        clients = [client(), client()]
        for number, one in enumerate(clients):
            one.run(f"m = opexec.attach('two'); seed = {1000 * (number + 1)}")
        assert share.clients == 2
        for one in clients:
            one.begin(calls)
        for k in range(30):
            assert np.array_equal(double.infer({"x": np.full(3, k)})["y"], np.full(3, 2 * k))
        for one in clients:
            one.end()
            assert one.run("right, m.stats().calls") == (True, 33)
        # The owner was not on the way: its own count has its own calls alone.
        assert share.describe()["calls"] >= 30 + 2 * 33


def test_a_model_with_replicas_and_counted_calls_is_shared_too(client: Callable[[], Client]):
    with opexec.load(source("double"), name="many", replicas=2, max_pending=4) as model, model.share():
        clients = [client(), client()]
        for one in clients:
            one.run("m = opexec.attach('many')")
            assert one.run("m.infer({'x': np.ones(2)})['y'].tolist()") == [2.0, 2.0]
        assert {one.run("m.workers[0].pid") for one in clients} == {one.pid for one in model.workers}


def test_a_client_sees_what_the_owner_gave_as_specs(client: Callable[[], Client]):
    given = [{"name": "x", "dtype": "float32", "shape": ["n", 2]}]
    with opexec.load(source("double"), inputs=given, name="specs") as model, model.share():
        one = client()
        assert one.run("m = opexec.attach('specs'); ") is None
        assert one.run("repr(m.inputs[0])") == repr(model.inputs[0])
        with pytest.raises(opexec.SpecError):
            one.run("m.infer({'x': np.zeros(3)})")
        assert one.run("m.empty('x', (4, 2)).shape") == (4, 2)
        assert one.run("m.platform, m.workers[0].pid") == ("python", model.workers[0].pid)


def test_every_kind_of_result_reaches_a_client(client: Callable[[], Client]):
    with opexec.load(source("echo"), name="echo") as model, model.share():
        one = client()
        one.run("m = opexec.attach('echo')")
        assert one.run("m(a=np.array(['x', 'yz'], object))['a'].tolist()") == ["x", "yz"]
        assert one.run("m(np.ones(2), np.zeros(1))[1].tolist()") == [0.0]
        one.run("x = m.empty('x', (300_000,), 'float32'); x[:] = 7")
        before = one.run("m.stats().bytes_copied_in")
        assert one.run("float(m(x=x)['x'].sum()), m.stats().bytes_copied_in") == (2_100_000.0, before)


def test_a_client_copies_a_slice_for_a_platform_that_wants_it_on_64_bytes(client: Callable[[], Client]):
    with opexec.load(source("aligned_addresses"), name="aligned") as model, model.share():
        one = client()
        one.run("m = opexec.attach('aligned'); x = m.empty('x', (8, 4), 'float32')")
        assert one.run("int(m(x=x[1:])['x'][0] % 64), m.stats().bytes_copied_in") == (0, 112)


def test_a_models_error_and_a_timeout_are_the_clients_alone(gate: Gate, client: Callable[[], Client]):
    with opexec.load(source("gated"), name="gated") as model, model.share():
        one, other = client(), client()
        one.run("m = opexec.attach('gated')")
        other.run("m = opexec.attach('gated')")
        with pytest.raises(opexec.ModelError):
            one.run("m.infer({'wrong': np.zeros(1)})")
        with pytest.raises(opexec.CallTimeout):
            one.run("m.infer({'x': np.full(1, -1.0)}, timeout=0.05)")
        gate.wait()
        other.begin("m.infer({'x': np.ones(2)})['y'].tolist()")
        gate.let()
        assert other.end() == [10.0, 10.0]
        assert one.run("m.infer({'x': np.ones(2)})['y'].tolist()") == [10.0, 10.0]
        assert model.infer({"x": np.ones(1)})["y"] == 10


def test_a_client_attaches_while_the_owner_never_lets_the_worker_rest(double, client: Callable[[], Client]):
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            double.infer({"x": np.ones(2)})

    thread = threading.Thread(target=call)
    with double.share("busy"):
        one = client()
        thread.start()
        try:
            assert one.run("opexec.attach('busy').infer({'x': np.ones(2)})['y'].tolist()") == [2.0, 2.0]
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_client_goes_on_with_the_next_worker(how: str, client: Callable[[], Client]):
    with opexec.load(source("double"), name="next") as model, model.share():
        one = client()
        one.run("m = opexec.attach('next')")
        first = one.run("m.infer({'x': np.ones(1)}); m.workers[0].pid") or model.workers[0].pid
        if how == "restart":
            model.restart()
        else:
            assert first is not None
            os.kill(first, signal.SIGKILL)
        # The call waits for the next worker; one that was on its way to the last one has failed, and is made again.
        answer = "[m.infer({'x': np.full(1, 4.0)}, timeout=60)['y'].tolist(), m.workers[0].pid]"
        try:
            told = one.run(answer)
        except opexec.WorkerDied:
            told = one.run(answer)
        assert told[0] == [8.0] and told[1] not in (None, first) and told[1] == model.workers[0].pid


def test_a_client_whose_owner_has_gone_is_told_so(client: Callable[[], Client]):
    model = opexec.load(source("double"), name="gone")
    model.share()
    one = client()
    one.run("m = opexec.attach('gone'); m.infer({'x': np.ones(1)})")
    model.close()
    with pytest.raises(opexec.LoadError, match="'gone'") as error:
        one.run(
            "try: m.infer({'x': np.ones(1)}, timeout=60)\nexcept opexec.WorkerDied: m.infer({'x': np.ones(1)}, timeout=60)"
        )
    assert error.value.stage == "attach"
    with pytest.raises(opexec.LoadError, match="nobody shares"):
        one.run("opexec.attach('gone')")


def test_nobody_shares_a_name_that_nobody_shares(runtime: Path):
    with pytest.raises(opexec.LoadError, match="nobody shares a model as 'nothing'") as error:
        opexec.attach("nothing")
    assert error.value.stage == "attach"
    for name in ("", "a/b", "..", "x" * 81):
        with pytest.raises(ValueError, match="expected up to 80"):
            opexec.attach(name)


def test_attach_refuses_arguments_that_make_no_sense(runtime: Path):
    with pytest.raises(ValueError, match="attach_timeout is -1"):
        opexec.attach("x", attach_timeout=-1)
    with pytest.raises(ValueError, match="wait is 'never'"):
        opexec.attach("x", wait="never")


def test_attach_gives_up_on_a_worker_that_is_busy(gate: Gate, runtime: Path):
    with opexec.load(source("gated"), name="held") as model, model.share():
        future = model.submit({"x": np.full(1, -1.0)})
        gate.wait()
        with pytest.raises(opexec.CallTimeout, match="attach_timeout"):
            opexec.attach("held", attach_timeout=0.2)
        gate.let()
        assert future.result()["y"] == -10
        with opexec.attach("held") as attached:
            assert attached.infer({"x": np.ones(1)})["y"] == 10


def test_the_socket_is_the_users_alone_and_goes_with_the_model(double, runtime: Path):
    with double.share("mine") as share:
        path = Path(share.path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(runtime.stat().st_mode) == 0o700
        with pytest.raises(opexec.OpexecError, match=rf"'mine' already, by process {os.getpid()}"):
            double.share("mine")
    assert not path.exists()
    assert not any(thread.name == "opexec-sharing" for thread in threading.enumerate())
    with opexec.load(source("double"), name="short") as model:
        kept = model.share()
    assert not Path(kept.path).exists()


def test_a_shared_model_that_is_gone_leaves_no_descriptor_open(runtime: Path):
    gc.collect()
    before = segments_open()
    with opexec.load(source("double"), name="short") as model:
        with model.share(), opexec.attach("short"):
            assert segments_open() > before
    del model
    gc.collect()
    assert segments_open() <= before


def segments_open() -> int:
    """How many descriptors of this process are opexec's segments."""
    folder = Path("/proc/self/fd")
    links = []
    for one in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one for reading this folder, say
            links.append(os.readlink(one))
    return sum("opexec" in link for link in links)


class Noticed:
    """A lock that tells when `who` asks for it."""

    def __init__(self, who: threading.Thread, asked: threading.Event) -> None:
        self._lock = threading.Lock()
        self._who = who
        self._asked = asked

    def __enter__(self) -> None:
        if threading.current_thread() is self._who:
            self._asked.set()
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def test_a_share_is_closed_while_its_thread_is_awake(double, runtime: Path, monkeypatch: pytest.MonkeyPatch):
    share = double.share("awake")
    (thread,) = (one for one in threading.enumerate() if one.name == "opexec-sharing")
    ended = threading.Event()
    poked: list[int] = []
    close, write = Listener.close, os.eventfd_write

    def close_and_tell(listener: Listener) -> None:
        close(listener)
        ended.set()

    def poke(fd: int, value: int) -> None:
        write(
            fd, value
        )  # as a visitor would who leaves in this moment: the thread wakes up, and finds no share
        assert ended.wait(60)
        os.fstat(fd)  # there for who is about to poke
        poked.append(fd)

    monkeypatch.setattr(Listener, "_lock", Noticed(thread, ended))
    monkeypatch.setattr(Listener, "close", close_and_tell)
    monkeypatch.setattr(os, "eventfd_write", poke)
    share.close()
    assert poked and not thread.is_alive()


def test_a_socket_that_a_dead_process_left_is_replaced(double, runtime: Path, client: Callable[[], Client]):
    one = client()
    one.run(f"m = opexec.load({source('double')!r}); s = m.share('left')")
    assert places.path_of("left").exists()
    with pytest.raises(opexec.OpexecError, match=f"by process {one.pid}"):
        double.share("left")
    one.kill()
    assert places.path_of("left").exists()
    with double.share("left"), opexec.attach("left") as attached:
        assert attached.infer({"x": np.ones(1)})["y"] == 2


def test_a_folder_of_others_is_refused(double, runtime: Path):
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    with pytest.raises(opexec.OpexecError, match="mode 0700"):
        double.share("open")


def test_a_forked_copy_of_the_owner_does_not_listen(double, runtime: Path):
    with double.share("forked"):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    # The copy lives, and yet nobody listens.
    try:
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError):
            sock.connect(str(places.path_of("forked")))
        with double.share("forked"), opexec.attach("forked") as attached:
            assert attached.infer({"x": np.ones(1)})["y"] == 2
    finally:
        os.write(write, b".")
        os.close(read)
        os.close(write)
        os.waitpid(pid, 0)


def test_what_is_not_ones_own_cannot_be_shared_or_swapped(double, runtime: Path):
    with opexec.load(source("double"), isolation="none") as model:
        with pytest.raises(opexec.OpexecError, match="runs in this process"):
            model.share("x")
    with double.share("own"), opexec.attach("own") as attached:
        with pytest.raises(opexec.OpexecError, match="belongs to another process"):
            attached.share("x")
        with pytest.raises(opexec.OpexecError, match="belongs to another process"):
            attached.swap(source("echo"))


def test_an_attached_worker_has_what_a_worker_of_ones_own_has(double, runtime: Path):
    with double.share("alike"), opexec.attach("alike") as attached:
        own, other = (model.replicas.first.process for model in (double, attached))
        assert {name for name in dir(own) if name[0] != "_"} - {"start"} <= set(dir(other))
        assert other.pid == own.pid and other.alive and not other.is_copy


def test_clients_are_spread_over_replicas(runtime: Path):
    with opexec.load(source("double"), replicas=2, name="replicas") as model, model.share() as share:
        with opexec.attach("replicas") as one, opexec.attach("replicas") as other:
            pids = {one.workers[0].pid, other.workers[0].pid}
            assert pids == {worker.pid for worker in model.workers} and share.clients == 2
