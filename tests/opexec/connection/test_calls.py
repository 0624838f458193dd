"""Calls in flight: each is given back once, however many come to end it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from opexec.connection.calls import Call, InFlight
from opexec.ipc import wire


class Book:
    """What was given back, in the place of the memory."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.forfeited: list[int] = []

    def give(self, block: Any) -> None:
        self.given.append(block)

    def forfeit(self, place: int) -> None:
        self.forfeited.append(place)


class Block:
    stock = None


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def calls(book: Book) -> InFlight:
    return InFlight(book, book)  # type: ignore[arg-type]


def sent(calls: InFlight, id: int = 1) -> Call:
    call = Call(Block())  # type: ignore[arg-type]
    call.id = id
    calls.pending[id] = call
    return call


RECORD = (wire.RESULT, 1, 0, 640, 0, 0, 0, 0)


def test_a_call_that_is_abandoned_twice_is_still_the_workers(calls: InFlight, book: Book) -> None:
    """By its deadline, and by who cancels it: the worker reads its inputs all the same, and its answer is to be expected."""
    call = sent(calls)
    block = call.block
    for _ in range(3):
        calls.abandon(call)
        assert calls.expects(1) and not calls.awaits(1) and calls.was_abandoned(call)
        assert book.given == []
    calls.settle(RECORD)
    assert book.given == [block] and book.forfeited == [640] and not calls.expects(1)


def test_a_call_that_many_threads_abandon_at_once_is_still_the_workers(calls: InFlight, book: Book) -> None:
    for id in range(1, 200):
        call = sent(calls, id)
        start = threading.Barrier(3)

        def abandon(call: Call = call, start: threading.Barrier = start) -> None:
            start.wait()
            calls.abandon(call)

        threads = [threading.Thread(target=abandon) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calls.expects(id) and book.given == []


def test_a_call_that_is_abandoned_after_its_answer_frees_that(calls: InFlight, book: Book) -> None:
    call = sent(calls)
    call.answer = RECORD
    calls.settle(RECORD)
    calls.abandon(call)
    calls.abandon(call)
    assert not calls.expects(1) and len(book.given) == 1 and book.forfeited == [640]
