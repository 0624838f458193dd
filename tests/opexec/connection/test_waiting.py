"""What may have happened to a call by the time its thread comes to wait for it: it was answered, it failed, or both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Model, OpexecError
from opexec.connection import Connection
from opexec.connection.calls import Call
from opexec.ipc import wire
from tests.loaded import in_thread, source
from tests.models import Gate


class Ended(OpexecError):
    pass


@pytest.fixture
def model() -> Iterator[Model]:
    with opexec.load(source("double"), restart=False) as model:
        for _ in range(3):
            model.infer({"x": np.zeros(4)})
        yield model


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Connection, Call], object]], None]:
    """Has something happen when a call is sent and its thread does not wait yet."""

    def arrange(happen: Callable[[Connection, Call], object]) -> None:
        send = Connection.send

        def sent(connection: Connection, call: Call) -> bool:
            woke = send(connection, call)
            happen(connection, call)
            return woke

        monkeypatch.setattr(Connection, "send", sent)

    return arrange


@pytest.fixture
def sleepless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that sleeps for an answer which is there would do so for long."""

    def sleep(connection: Connection, timeout_ms: int) -> None:
        raise AssertionError("slept, though there is nothing to wait for")

    monkeypatch.setattr(Connection, "sleep", sleep)


def has_come(connection: Connection) -> None:
    consumer = connection.channel.consumer
    while consumer.words[consumer.tail_at] == consumer.head:
        time.sleep(0.0001)


def read_by_another(connection: Connection, call: Call) -> None:
    has_come(connection)
    in_thread(connection.catch_up).result()
    assert call.answer is not None


def read_by_one_that_was_interrupted(connection: Connection, call: Call) -> None:
    """As Ctrl-C leaves it behind, once the answer is noted."""
    has_come(connection)
    record = connection.channel.consumer.peek(wire.HEAD)
    call.plan = connection.channel.plan(record[2])
    call.answer = connection.calls.unsettled = record


@pytest.mark.parametrize("reads", [read_by_another, read_by_one_that_was_interrupted])
@pytest.mark.parametrize("late", [False, True], ids=["", "past its deadline"])
def test_an_answer_that_is_there_is_given_at_once(
    model: Model, between: Any, sleepless: None, reads: Callable[[Connection, Call], None], late: bool
) -> None:
    def happen(connection: Connection, call: Call) -> None:
        reads(connection, call)
        if late:
            call.deadline = time.monotonic() - 1

    between(happen)
    for value in range(3):
        assert model.infer({"x": np.full(4, value)})["y"].tolist() == [2 * value] * 4
    assert model.stats().errors == {} and model.stats().in_flight == 0


def test_a_failure_that_is_there_is_raised_at_once(model: Model, between: Any, sleepless: None) -> None:
    between(lambda connection, call: connection.end(Ended("the end came before")))
    with pytest.raises(Ended, match="before"):
        model.infer({"x": np.zeros(4)})


def test_an_answer_to_a_call_that_has_failed_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """Its input may have been given to another call while the worker still read it."""
    with opexec.load(source("gated"), restart=False) as model:
        for _ in range(3):
            model.infer({"x": np.ones(4)})
        connection: Connection = model._link.connection  # type: ignore[attr-defined]
        ready, looked = connection._strategy.ready, threading.Event()

        def meanwhile(words: Any, at: int, head: int, *rest: Any) -> bool:
            if not looked.is_set():
                looked.set()
                gate.wait()
                in_thread(lambda: connection.end(Ended("the end came first"))).result()
                packer = model._packer  # type: ignore[attr-defined]
                packer.pack(("x",), [np.full(4, 7.0)], 0)
                gate.let()
                has_come(connection)
            return ready(words, at, head, *rest)

        monkeypatch.setattr(connection._strategy, "ready", meanwhile)
        with pytest.raises(Ended, match="first"):
            model.infer({"x": np.full(4, -1.0)})
        assert looked.is_set()
