"""A client that dies, lies, floods or belongs to somebody else harms nobody but itself; and no client sees what is another's."""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import opexec
from opexec.connection import Connection
from opexec.ipc import PROTOCOL
from opexec.ipc.control import Control
from opexec.ipc.ring import CALLER, CHANNEL_BYTES, write_header
from opexec.ipc.segment import Segment
from opexec.sharing import listener, places
from opexec.sharing.attached import AttachedProcess
from opexec.sharing.shared import Share
from opexec.sharing.visit import Visit
from tests.attaching import Client, client, no_idle_clients, runtime
from tests.loaded import source
from tests.models import Gate

__all__ = ["client", "no_idle_clients", "runtime"]


@pytest.fixture
def shared(gate: Gate, runtime: Path) -> Iterator[tuple[opexec.Model, Share]]:
    with opexec.load(source("gated"), name="gated") as model, model.share("it") as share:
        model.infer({"x": np.ones(1)})
        yield model, share


def held(pid: int) -> tuple[list[str], int]:
    """The shared memory that a process maps, by inode, and how many descriptors it has."""
    maps = [
        line.split()[4]
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if re.search(r"/dev/shm/opexec-|memfd:opexec", line)
    ]
    return sorted(maps), len(os.listdir(f"/proc/{pid}/fd"))


def wait_for(share: Share, clients: int) -> None:
    """Until the worker has so many clients. It counts them when it takes notice, which a call of the owner's makes sure of."""
    while share.clients != clients:
        time.sleep(0.001)


def serves(model: opexec.Model) -> bool:
    return float(model.infer({"x": np.full(1, 4.0)}, timeout=60)["y"][0]) == 40.0


def test_a_client_killed_in_the_middle_of_a_call_leaves_nothing_behind(
    shared, gate: Gate, client: Callable[[], Client]
):
    model, share = shared
    pid = model.workers[0].pid
    before = held(pid)
    one = client()
    one.run("m = opexec.attach('it'); x = np.full(300_000, -1.0)")
    one.begin("m.infer({'x': x})")
    gate.wait()
    assert len(held(pid)[0]) > len(before[0])
    one.kill()
    gate.let()  # the model goes on with what nobody wants any more
    assert serves(model)
    wait_for(share, 0)
    assert held(pid)[0] == before[0]
    # The page for the tally stays with the worker: one descriptor, that of its mapping.
    assert held(pid)[1] <= before[1] + 1
    assert model.workers[0].pid == pid and serves(model)


def test_ten_clients_come_and_go_and_the_worker_holds_what_it_held(shared, runtime: Path):
    model, share = shared
    pid = model.workers[0].pid
    with opexec.attach("it") as first:
        first.infer({"x": np.ones(1)})
    wait_for(share, 0)
    before = held(pid)
    mine = len(os.listdir("/proc/self/fd"))
    for size in range(10):
        with opexec.attach("it") as attached:
            assert attached.infer({"x": np.ones(10**size // 100 + 1)})["y"][0] == 10
            del attached
        wait_for(share, 0)
    assert held(pid) == before
    assert len(os.listdir("/proc/self/fd")) <= mine


def test_no_client_has_anything_of_another_or_of_the_owner(shared, client: Callable[[], Client]):
    model, _ = shared
    one, other = client(), client()
    for each in (one, other):
        each.run("m = opexec.attach('it'); y = m.infer({'x': np.ones(200_000)})")
    inodes = [set(held(pid)[0]) for pid in (one.pid, other.pid, os.getpid(), model.workers[0].pid)]
    assert len(inodes[0]) >= 3 and len(inodes[1]) >= 3
    assert not inodes[0] & inodes[1] and not inodes[0] & inodes[2] and not inodes[1] & inodes[2]
    assert inodes[0] | inodes[1] <= inodes[3]
    # Nor as a descriptor that is not mapped.
    for pid, foreign in ((one.pid, inodes[1] | inodes[2]), (other.pid, inodes[0] | inodes[2])):
        described = {str(os.stat(f"/proc/{pid}/fd/{fd}").st_ino) for fd in os.listdir(f"/proc/{pid}/fd")}
        assert not described & foreign


def test_a_stopped_client_that_owes_room_holds_nobody_up(
    gate: Gate, runtime: Path, client: Callable[[], Client]
):
    with opexec.load(source("gated"), name="gated") as model, model.share("it"):
        one = client()
        one.run("m = opexec.attach('it'); x = np.full(2_000_000, -1.0)")
        one.begin("float(m.infer({'x': x})['y'].sum())")
        gate.wait()
        os.kill(one.pid, signal.SIGSTOP)
        try:
            gate.let()  # its answer needs a larger arena than it has given
            assert serves(model)
            with opexec.attach("it") as other:
                assert serves(other)
        finally:
            os.kill(one.pid, signal.SIGCONT)
        assert one.end() == -20_000_000.0


def test_a_client_that_gives_no_room_has_its_call_fail(gate: Gate, runtime: Path):
    with opexec.load(source("growing"), name="grow") as model, model.share():
        with opexec.attach("grow", shm_limit="8MiB") as attached:
            with pytest.raises(opexec.OutOfSharedMemory, match="shm_limit=8 MiB"):
                attached(count=np.array(4_000_000))
            assert attached(count=np.array(3)).tolist() == [0, 1, 2]
        assert model(count=np.array(2)).tolist() == [0, 1]


class Liar:
    """A client that was let in by the rules and does not keep to them."""

    def __init__(self, name: str) -> None:
        self._visit = Visit.open(name)
        _, sock, self._pidfd = self._visit.introduce()
        self.control = Control(sock)
        self.segment = Segment.create(1, CHANNEL_BYTES)
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]

    def open(self) -> None:
        write_header(self.segment.map, PROTOCOL)
        self.control.send(
            {"type": "channel", "size": self.segment.size, "wait": "block"}, [self.segment.fd, *self.bells]
        )
        self.control.send({"type": "load"})
        assert self.control.receive(timeout=60)[0]["type"] == "loaded"

    def ring(self) -> None:
        os.eventfd_write(self.bells[1], 1)

    def words(self) -> memoryview:
        return memoryview(self.segment.map).cast("Q")

    def wait_until_cut_off(self) -> None:
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLRDHUP)
        assert poll.poll(60_000)

    def close(self) -> None:
        self.control.close()
        self._visit.close()
        self.segment.close()
        for fd in (*self.bells, self._pidfd):
            os.close(fd)


def _no_channel(liar: Liar) -> None:
    liar.control.send({"type": "load"})


def _garbage(liar: Liar) -> None:
    liar.control._sock.send(b"\xff" * 64)


def _bells_that_block(liar: Liar) -> None:
    read, write = os.pipe()
    write_header(liar.segment.map, PROTOCOL)
    liar.control.send(
        {"type": "channel", "size": CHANNEL_BYTES, "wait": "block"}, [liar.segment.fd, read, write]
    )
    os.close(read)
    os.close(write)


def _no_header(liar: Liar) -> None:
    liar.control.send(
        {"type": "channel", "size": CHANNEL_BYTES, "wait": "block"}, [liar.segment.fd, *liar.bells]
    )


def _unknown_message(liar: Liar) -> None:
    liar.open()
    liar.control.send({"type": "attach"}, [0, 0, 0])


def _everything_overwritten(liar: Liar) -> None:
    liar.open()
    liar.segment.map[:] = b"\xa5" * len(liar.segment.map)
    liar.ring()


def _impossible_tail(liar: Liar) -> None:
    liar.open()
    liar.words()[CALLER.tail] = 5000
    liar.ring()


def _unknown_plan(liar: Liar) -> None:
    liar.open()
    struct.pack_into("=8Q", liar.segment.map, CALLER.slots, 1, 1, 99, 64, 0, 0, 0, 0)
    liar.words()[CALLER.tail] = 1
    liar.ring()


def _releases_what_it_never_had(liar: Liar) -> None:
    liar.open()
    struct.pack_into("=16Q", liar.segment.map, CALLER.slots, 2, 65, *[0] * 14)
    liar.words()[CALLER.tail] = 1
    liar.ring()


def _no_map_of_released_places(liar: Liar) -> None:
    liar.open()
    liar.control.send({"type": "refused", "why": 1, "released": ["x"]})


LIES = [
    _no_channel,
    _garbage,
    _bells_that_block,
    _no_header,
    _unknown_message,
    _everything_overwritten,
    _impossible_tail,
    _unknown_plan,
    _releases_what_it_never_had,
    _no_map_of_released_places,
]


@pytest.fixture(scope="module")
def steady(tmp_path_factory) -> Iterator[tuple[opexec.Model, opexec.Model, Share]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPEXEC_RUNTIME", str(tmp_path_factory.mktemp("sockets") / "runtime"))
        with opexec.load(source("double"), name="steady") as model, model.share() as share:
            with opexec.attach("steady") as attached:
                yield model, attached, share


@pytest.mark.parametrize("lie", LIES)
def test_a_client_that_breaks_the_protocol_is_cut_off_alone(lie: Callable[[Liar], None], steady):
    model, honest, share = steady
    pid = model.workers[0].pid
    before = held(pid)
    liar = Liar("steady")
    lie(liar)
    liar.wait_until_cut_off()
    liar.close()
    for one in (model, honest):
        assert one.infer({"x": np.full(3, 2.0)}, timeout=60)["y"].tolist() == [4.0] * 3
    wait_for(share, 1)
    assert model.workers[0].pid == pid and held(pid) == before


@pytest.mark.parametrize(
    "bytes", [b"\xff" * 64, struct.pack("<II", 3, 0) + b"\x81\xa1\x00", struct.pack("<II", 1 << 30, 0)]
)
def test_garbage_on_the_owners_socket_is_shown_out(bytes, steady, caplog):
    model, honest, _ = steady
    with places.connect("steady") as sock, caplog.at_level(logging.WARNING, "opexec.sharing"):
        sock.send(bytes)
        sock.settimeout(60)
        assert sock.recv(1) == b""
    assert "showed out" in caplog.text
    with opexec.attach("steady") as another:
        assert another.infer({"x": np.ones(1)})["y"] == 2


def test_who_says_nothing_is_not_waited_for(steady, monkeypatch: pytest.MonkeyPatch):
    silent = [places.connect("steady") for _ in range(listener._MOST_STRANGERS + 5)]
    with opexec.attach("steady") as another:
        assert another.infer({"x": np.ones(1)})["y"] == 2
    for sock in silent:
        sock.close()


def test_another_users_process_is_refused(shared, monkeypatch: pytest.MonkeyPatch, runtime: Path):
    real = places.peer
    monkeypatch.setattr(
        places, "peer", lambda sock: (real(sock)[0], os.geteuid() + 1 if _is_accepted(sock) else os.geteuid())
    )
    with pytest.raises(opexec.LoadError, match=f"you are user {os.geteuid() + 1}"):
        opexec.attach("it")
    monkeypatch.undo()
    monkeypatch.setenv("OPEXEC_RUNTIME", str(runtime))
    assert serves(shared[0])


def _is_accepted(sock: socket.socket) -> bool:
    """Whether this is the owner's end of the connection."""
    return bool(sock.getsockname())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_cannot_reach_the_socket(shared, runtime: Path):
    path = places.path_of("it")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
            os.write(write, b"connected")
        except PermissionError:
            os.write(write, b"refused")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 20) == b"refused"
    os.close(read)
    os.close(write)


def test_a_worker_that_dies_as_it_is_to_let_a_client_in_is_waited_for(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
):
    killed: list[int] = []
    let_in = Connection.let_in

    def after_its_death(connection: Connection, *arguments: int) -> None:
        if not killed:
            killed.append(connection.process.pid)
            os.kill(connection.process.pid, signal.SIGKILL)
            assert select.select([connection.process.pidfd], [], [], 60)[0]
        let_in(connection, *arguments)

    monkeypatch.setattr(Connection, "let_in", after_its_death)
    with opexec.load(source("double"), name="double") as model, model.share("it"):
        with opexec.attach("it", timeout=60, attach_timeout=60) as attached:
            assert attached.infer({"x": np.ones(3)})["y"].tolist() == [2.0] * 3
            assert attached.workers[0].pid == model.workers[0].pid != killed[0]


def test_a_worker_that_dies_while_it_is_to_let_a_client_in_is_waited_for(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
):
    killed: list[int] = []
    let_in = Connection.let_in

    def and_its_death(connection: Connection, *arguments: int) -> None:
        pid = connection.process.pid
        if not killed:
            os.kill(pid, signal.SIGSTOP)  # it takes the message no more
        let_in(connection, *arguments)
        if not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(Connection, "let_in", and_its_death)
    with opexec.load(source("double"), name="double") as model, model.share("it"):
        with opexec.attach("it", timeout=60, attach_timeout=60) as attached:
            assert attached.infer({"x": np.ones(3)})["y"].tolist() == [2.0] * 3
            assert attached.workers[0].pid == model.workers[0].pid != killed[0]


def test_a_worker_whose_socket_is_closed_before_its_end_is_seen_has_died(monkeypatch: pytest.MonkeyPatch):
    real = select.poll

    class Late:
        """Its process dies while somebody waits for that, and not before."""

        def __init__(self) -> None:
            self._poll = real()
            self.register = self._poll.register

        def poll(self, timeout: int) -> list[tuple[int, int]]:
            if timeout:
                worker.kill()
            return self._poll.poll(timeout)

    ours, theirs = socket.socketpair()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as worker:
        told = {"pid": worker.pid, "owner": os.getpid(), "interpreter": "", "python": "", "numpy": ""}
        process = AttachedProcess("it", told, Control(ours), os.pidfd_open(worker.pid))
        theirs.close()
        with monkeypatch.context() as patched:
            patched.setattr(select, "poll", Late)
            died = process.death("load")
        assert type(died) is opexec.WorkerDied and "died" in str(died)


def test_the_owners_death_ends_the_worker_and_the_client_is_told(runtime: Path, client: Callable[[], Client]):
    owner, one = client(), client()
    owner.run(f"m = opexec.load({source('double')!r}, name='owned'); s = m.share()")
    one.run("m = opexec.attach('owned'); m.infer({'x': np.ones(1)})")
    pid = one.run("m.workers[0].pid")
    pidfd = os.pidfd_open(pid)
    owner.kill()
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)
    with pytest.raises((opexec.WorkerDied, opexec.LoadError)):
        one.run("m.infer({'x': np.ones(1)}, timeout=60)")
    with pytest.raises(opexec.LoadError, match="nobody shares"):
        one.run("m.infer({'x': np.ones(1)}, timeout=60)")
