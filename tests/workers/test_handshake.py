"""The handshake: two sides that do not fit together find out before anything else, and say which field differs."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

import pytest

from opexec.ipc import PROTOCOL
from opexec.ipc.control import Control
from opexec.ipc.faults import ProtocolError
from opexec.workers import handshake


@contextlib.contextmanager
def controls():
    caller, worker = map(Control, socket.socketpair())
    try:
        yield caller, worker
    finally:
        caller.close()
        worker.close()


def caller_hello(**changes):
    return dict(handshake.hello("2.0.0"), **changes)


def refusal(hello):
    """What a worker answers to a hello before it leaves."""
    with controls() as (caller, worker):
        caller.send(hello)
        with pytest.raises(SystemExit):
            handshake.answer(worker)
        message, fds = caller.receive(timeout=10)
        assert fds == []
        return message


def test_a_worker_says_what_it_is():
    import numpy

    with controls() as (caller, worker):
        caller.send(caller_hello())
        handshake.answer(worker)
        hello, _ = caller.receive(timeout=10)
    assert hello["type"] == "hello"
    assert hello["protocol"] == PROTOCOL
    assert hello["python"] == ".".join(map(str, sys.version_info[:3]))
    assert hello["numpy"] == numpy.__version__
    assert hello["pid"] == os.getpid()
    assert hello["executable"] == sys.executable
    assert handshake.disagreement(caller_hello(), hello) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("protocol", PROTOCOL + 1), ("opexec", "0.0.1"), ("byteorder", "odd"), ("pointer_bits", 16)],
)
def test_a_refusal_names_the_field_and_both_values(field, value):
    message = refusal(caller_hello(**{field: value}))
    assert message["type"] == "refused"
    assert message["stage"] == "handshake"
    own = handshake.hello("1")[field]
    assert message["reason"] == "{}: the caller has {!r}, the worker {!r}".format(field, value, own)
    assert message["cure"]
    # The caller judges by the same rules.
    reason, _ = handshake.disagreement(caller_hello(), caller_hello(**{field: value}))
    assert reason == "{}: the caller has {!r}, the worker {!r}".format(field, own, value)


def test_another_protocol_is_refused_whatever_else_its_hello_holds():
    message = refusal({"type": "hello", "protocol": PROTOCOL + 1})
    assert message["reason"].startswith("protocol: ")


@pytest.mark.parametrize("state", ["absent", "broken"])
def test_a_worker_without_a_working_numpy_says_so(state, monkeypatch):
    if state == "absent":
        monkeypatch.setitem(sys.modules, "numpy", None)
    else:
        monkeypatch.delitem(sys.modules, "numpy")
        monkeypatch.setattr(sys, "meta_path", [Broken()] + sys.meta_path)
    message = refusal(caller_hello())
    assert message["stage"] == "handshake"
    assert "cannot import numpy" in message["reason"]
    assert sys.executable in message["reason"]
    assert message["cure"] == "install numpy in that environment"


class Broken:
    """Finds a numpy that cannot be loaded."""

    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            raise RuntimeError("built for another machine")
        return None


@pytest.mark.parametrize("field", ["python", "implementation", "numpy", "msgpack", "executable", "pid"])
@pytest.mark.parametrize("value", [None, [1]])
def test_a_hello_is_checked_field_by_field(field, value):
    with pytest.raises(ProtocolError, match="the worker's hello has no valid {}".format(field)):
        handshake.disagreement(caller_hello(), caller_hello(**{field: value}))
    with pytest.raises(ProtocolError, match="the caller's hello has no valid {}".format(field)):
        handshake.disagreement(caller_hello(**{field: value}), caller_hello())


def test_anything_but_a_hello_is_a_protocol_error():
    with controls() as (caller, worker):
        caller.send({"type": "load"})
        with pytest.raises(
            ProtocolError, match="expected the caller's hello, received a message of type 'load'"
        ):
            handshake.answer(worker)


def test_descriptors_that_come_with_a_hello_are_closed(descriptors):
    with controls() as (caller, worker):
        before = descriptors()
        caller.send(caller_hello(), [0])
        handshake.answer(worker)
        assert descriptors() == before
