"""What the tests of ipc share: memory, bells and both ends of a channel."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

import opexec.ipc
from opexec.ipc import PROTOCOL
from opexec.ipc.channel import Channel
from opexec.ipc.control import Control
from opexec.ipc.ring import CALLER, CHANNEL_BYTES, WORKER, write_header
from opexec.ipc.segment import Segment

OTHER_SIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "other_side.py")


@pytest.fixture
def segments():
    """Makes segments of at least the given size, with ids from 0 on, and closes their descriptors afterwards."""
    made = []

    def make(size):
        made.append(Segment.create(len(made), size))
        return made[-1]

    yield make
    for segment in made:
        segment.close()


@pytest.fixture
def eventfd():
    """Makes eventfds. `os.eventfd` came with Python 3.10; a worker, older or not, only uses those it was given."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = []

    def make():
        fd = libc.eventfd(0, os.O_NONBLOCK | os.O_CLOEXEC)
        assert fd >= 0, os.strerror(ctypes.get_errno())
        made.append(fd)
        return fd

    yield make
    for fd in made:
        os.close(fd)


class Ends:
    """A caller's and a worker's end of one channel in this process, and what came there that was not the channel's own."""

    def __init__(self, segment, bells, sockets):
        write_header(segment.map, PROTOCOL)
        self.messages = []
        self.controls = [Control(sock) for sock in sockets]
        caller, worker = self.controls
        self.caller = Channel(segment.map, CALLER, WORKER, caller, (bells[0], bells[1]), self._came)
        self.worker = Channel(segment.map, WORKER, CALLER, worker, (bells[1], bells[0]), self._came)

    def _came(self, message, fds):
        self.messages.append((message, fds))


@pytest.fixture
def ends(segments, eventfd):
    ends = Ends(segments(CHANNEL_BYTES), (eventfd(), eventfd()), socket.socketpair())
    yield ends
    for control in ends.controls:
        control.close()


@pytest.fixture
def other_side():
    """Starts sides of a channel in processes of their own: ``start(role, count, segment, *bells)`` gives the Popen."""
    started = []

    def start(role, count, segment, *bells):
        fds = (segment.fd,) + bells
        arguments = [role] + [str(number) for number in (count, segment.size) + fds]
        started.append(subprocess.Popen([sys.executable, "-I", OTHER_SIDE] + arguments, pass_fds=fds))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


_IPC = os.path.dirname(os.path.abspath(opexec.ipc.__file__))


@pytest.fixture
def interruptions():
    """Ctrl-C at every point of an operation where Python looks for it: whenever a call begins or returns.

    ``for state in interruptions(prepare, operate)`` runs ``operate(prepare())`` again and again, each time interrupted one point
    later within the code of ipc, until it is through, and yields what `prepare` returned after each.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    here = threading.get_ident()

    def run(prepare, operate):
        for point in itertools.count():
            state = prepare()
            left = [point]

            def interrupt(frame, event, argument, left=left):
                if event != "c_call" and frame.f_code.co_filename.startswith(_IPC):
                    left[0] -= 1
                    if left[0] == -1:
                        signal.pthread_kill(here, signal.SIGINT)

            try:
                sys.setprofile(interrupt)
                operate(state)
            except KeyboardInterrupt:
                pass
            finally:
                sys.setprofile(None)
            yield state
            if left[0] >= 0:
                assert point > 0, "nothing was interrupted"
                return

    yield run
    signal.signal(signal.SIGINT, previous)
