"""Nothing a worker writes is trusted: each thing that it can break ends the ordinary call with a typed error, and the worker with it."""

from __future__ import annotations

import asyncio
import json
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Model, ProtocolError
from opexec.ipc import ring, wire
from tests.loaded import PYTHONS, interpreter
from tests.models import Gate

MODELS = Path(__file__).with_name("broken_models.py")

X = np.arange(4.0)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Model]:
    """Loads one of the broken models, with what it is to break."""

    def load(factory: str, what: Any = None, **options: Any) -> Model:
        monkeypatch.setenv("OPEXEC_TEST_BREAK", json.dumps(what))
        return opexec.load(f"{MODELS}:{factory}", **{"restart": False, **options})

    return load


def by_infer(model: Model) -> Any:
    return model.infer({"x": X})["y"]


def by_call(model: Model) -> Any:
    return model(X)["y"]


def by_submit(model: Model) -> Any:
    return model.submit({"x": X}).result()["y"]


def by_infer_async(model: Model) -> Any:
    return asyncio.run(model.infer_async({"x": X}))["y"]


WAYS = [by_infer, by_call, by_submit, by_infer_async]


def assert_broken(model: Model, words: str, way: Callable[[Model], Any] = by_infer) -> None:
    """The call ends with ProtocolError, the worker is dead, later calls fail at once, and a new worker works."""
    pid = model.workers[0].pid
    pidfd = os.pidfd_open(pid)
    with pytest.raises(ProtocolError, match=words) as caught:
        way(model)
    assert isinstance(caught.value, opexec.OpexecError)
    assert f"(pid {pid}) broke the protocol and was killed" in str(caught.value)
    assert select.select([pidfd], [], [], 60)[0], "the worker lives on"
    os.close(pidfd)
    assert model.workers[0].state == "stopped"
    for again in WAYS:
        with pytest.raises(ProtocolError, match=words):
            again(model)


def assert_heals(model: Model) -> None:
    model.restart()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(by_infer(model), X * 2)


# ---- records


def test_a_forged_answer_that_is_right_in_everything_is_taken(broken: Callable[..., Model]) -> None:
    """The forger's craft itself: the tests below change one field of this record each."""
    with broken("forger", {}) as model:
        np.testing.assert_array_equal(by_infer(model), X * 2)
        np.testing.assert_array_equal(by_infer(model), X * 2)


SEGMENT = 1 << wire.PLACE_BITS

FORGERIES: dict[str, tuple[dict[str, Any], str]] = {
    "an id that was answered": ({"id": 1}, "an answer to call 1, which is not waiting for one"),
    "an id that was not sent yet": ({"id": 3}, "an answer to call 3, which is not waiting"),
    "no id": ({"id": 0}, "an answer to call 0"),
    "the largest id": ({"id": -1}, f"an answer to call {2**64 - 1}"),
    "a plan nobody announced": ({"plan": {"add": 1}}, "names plan [0-9]+, which was never announced"),
    "no plan": ({"plan": 0}, "names plan 0, which was never announced"),
    "the largest plan id": ({"plan": -1}, "which was never announced"),
    "a segment nobody announced": (
        {"place": {"add": 50 * SEGMENT}},
        "names segment [0-9]+, which was never announced",
    ),
    "a segment of the caller's": ({"place": 0}, "names segment 0, which was never announced"),
    "the largest place": ({"place": -1}, "names a block at 0xf+, which is not on 64 bytes"),
    "an offset past the end": (
        {"place": {"add": 1 << 30}},
        "names [0-9]+ bytes at [0-9]+ of segment [0-9]+, which has",
    ),
    "an offset before the end, and a size past it": (
        {"place": {"add": (1 << 20) + 64}},
        "of segment [0-9]+, which has 1048576",
    ),
    "an offset between the blocks": ({"place": {"add": 8}}, "which is not on 64 bytes"),
    "an odd offset": ({"place": {"add": 1}}, "which is not on 64 bytes"),
    "no kind": ({"kind": 0}, "a record of kind 0; expected a result or a failure"),
    "a call": ({"kind": wire.CALL}, "a record of kind 1"),
    "a release": ({"kind": wire.RELEASE}, "a record of kind 2"),
    "a kind nobody knows": ({"kind": -1}, "a record of kind [0-9]+"),
    "a failure without a message": ({"kind": wire.FAILURE}, "call 2 failed without a message that says why"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_answer(broken: Callable[..., Model], forgery: str) -> None:
    changes, words = FORGERIES[forgery]
    with broken("forger", changes) as model:
        by_infer(model)
        assert_broken(model, words)
        assert_heals(model)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "forgery", ["an id that was answered", "a plan nobody announced", "an offset past the end"]
)
def test_a_forged_answer_however_it_was_called(
    broken: Callable[..., Model], forgery: str, way: Callable[[Model], Any]
) -> None:
    changes, words = FORGERIES[forgery]
    with broken("forger", changes) as model:
        way(model)
        assert_broken(model, words, way)


@pytest.mark.slow
@pytest.mark.parametrize("forgery", ["no id", "an odd offset", "the largest plan id"])
def test_a_forged_answer_of_an_old_worker(broken: Callable[..., Model], forgery: str) -> None:
    changes, words = FORGERIES[forgery]
    with broken("forger", changes, env=interpreter("3.7")) as model:
        by_infer(model)
        assert_broken(model, words)


def test_an_answer_where_the_caller_holds_another(broken: Callable[..., Model]) -> None:
    with broken("forger", {}) as model:
        held = by_infer(model)
        assert_broken(model, "a result lies at 0x[0-9a-f]+, where the caller still holds another")
        np.testing.assert_array_equal(held, X * 2)
        assert_heals(model)
        np.testing.assert_array_equal(held, X * 2)


@pytest.mark.parametrize("place", [None, -1, {"add": 1 << 30}], ids=str)
def test_a_late_answer_that_is_forged(broken: Callable[..., Model], gate: Gate, place: Any) -> None:
    """Its caller has given up, so nobody looks at the block; nothing that the caller holds may suffer."""
    with broken("forger", {} if place is None else {"place": place}) as model:
        held = by_infer(model)
        with pytest.raises(opexec.CallTimeout):
            model.infer({"x": X}, timeout=0.05)
        gate.let()
        for _ in range(3):
            with pytest.raises((opexec.CallTimeout, ProtocolError)):
                model.infer({"x": X}, timeout=0.05)  # the worker has stopped, whatever it wrote
        assert_heals(model)
        np.testing.assert_array_equal(held, X * 2)


# ---- cursors and the sleep word


CURSORS: dict[str, tuple[dict[str, Any], str]] = {
    "more answers than slots": (
        {"worker.tail": {"add": ring.SLOTS + 1}},
        "the producer says it wrote [0-9]+ records",
    ),
    "an answer that was never written": (
        {"worker.tail": {"add": 1}},
        "an answer to call 0, which is not waiting",
    ),
    "fewer answers than before": ({"worker.tail": 0}, "the producer says it wrote 0 records; expected 1 to"),
    "the largest tail": ({"worker.tail": -1}, "the producer says it wrote [0-9]+ records"),
}


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_cursor_of_answers(broken: Callable[..., Model], cursor: str) -> None:
    changes, words = CURSORS[cursor]
    with broken("scribbler", changes) as model:
        by_infer(model)
        assert_broken(model, words)


@pytest.mark.parametrize(
    ("head", "way"),
    [
        (-1, by_infer),
        (1 << 63, by_infer),
        ({"add": 1}, by_infer),
        ({"add": ring.SLOTS}, by_infer),
        (-1, by_call),
        (-1, by_submit),
        (-1, by_infer_async),
    ],
)
def test_a_cursor_of_calls(
    broken: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, head: Any, way: Callable[[Model], Any]
) -> None:
    """The worker says that it read calls which were never sent; who sends the next one sees it."""
    monkeypatch.setenv("OPEXEC_TEST_GO_ON", "1")
    with broken("scribbler", {"worker.head": head}) as model:
        by_infer(model)
        np.testing.assert_array_equal(by_infer(model), X * 2)
        assert_broken(model, "ring: of [0-9]+ records the consumer says it read", way)
        monkeypatch.delenv("OPEXEC_TEST_GO_ON")
        assert_heals(model)


def test_the_callers_own_words_are_read_by_the_worker_alone(
    broken: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that overwrites the caller's cursors confuses itself, and no one else."""
    monkeypatch.setenv("OPEXEC_TEST_GO_ON", "1")
    with broken("scribbler", {"caller.tail": {"add": 7}, "caller.head": 5, "caller.asleep": 12345}) as model:
        by_infer(model)
        for _ in range(5):
            try:
                np.testing.assert_array_equal(model.infer({"x": X}, timeout=20)["y"], X * 2)
            except opexec.OpexecError as error:
                assert not isinstance(error, opexec.CallTimeout), "a hang"
                break


def test_a_worker_that_never_rings(broken: Callable[..., Model]) -> None:
    for wait in ("adaptive", "block"):
        with broken("silent", wait=wait) as model:
            for way in WAYS:
                np.testing.assert_array_equal(way(model), X * 2)


@pytest.mark.parametrize("word", [0, 2, -1, 1 << 62], ids=str)
def test_a_sleep_word_that_says_anything(broken: Callable[..., Model], word: int) -> None:
    with broken("sleepless", word, wait="block") as model:
        for way in (by_infer, by_infer, *WAYS):
            np.testing.assert_array_equal(way(model), X * 2)


# ---- plans


NAME, DTYPE, SHAPE, SIZE, OFFSET = range(5)
TENSOR = ["tensors", 0]

# In the plan of one float64 tensor of shape [4]; one or two of each field. The tests of ipc try all that a plan can say.
PLANS: dict[str, tuple[list[Any], str]] = {
    "another id": ([[["id"], 99]], "names plan [0-9]+, which was never announced"),
    "a negative id": ([[["id"], -1]], "plan: id is -1"),
    "no tensors": ([[["tensors"], "DELETE"]], "a plan that cannot be read"),
    "a dtype nobody knows": ([[[*TENSOR, DTYPE], "<f9"]], "a dtype that cannot be read: '<f9'"),
    "Python objects": ([[[*TENSOR, DTYPE], "|O"]], r"a dtype that cannot be read: '\|O'"),
    "a dtype of another size": ([[[*TENSOR, DTYPE], "<f4"]], "has 32 bytes; .* make 16"),
    "texts where there are numbers": ([[[*TENSOR, DTYPE], "#string"]], "has 32 bytes for 4 elements"),
    "too high a rank": ([[[*TENSOR, SHAPE], [1] * 33 + [4]]], "expected at most 32 dimensions"),
    "a larger shape": ([[[*TENSOR, SHAPE], [5]]], "has 32 bytes; .* make 40"),
    "an offset between": ([[[*TENSOR, OFFSET], 8]], "lies at byte 8"),
    "an offset past the end": ([[[*TENSOR, OFFSET], 64]], "lies at byte 64 and is 32 long; the block has 64"),
    "a tensor outside the block": ([[[*TENSOR, OFFSET], -1]], "leaves tensors outside the block"),
    "a block that is too small": ([[["size"], 16]], "lies at byte 0 and is 32 long; the block has 16"),
    "a block larger than its segment": (
        [[["size"], 1 << 30]],
        "names 1073741824 bytes at [0-9]+ of segment [0-9]+, which has",
    ),
}


@pytest.mark.parametrize("change", PLANS)
def test_a_plan(broken: Callable[..., Model], change: str) -> None:
    changes, words = PLANS[change]
    with broken("planner", changes) as model:
        assert_broken(model, words)


STRUCTURES = ["nonsense", ["tuple", "array", "array"], ["dict", [["y"]], "array"]]


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_a_result_put_together_wrongly(broken: Callable[..., Model], structure: Any) -> None:
    with broken("planner", [[["note"], structure]]) as model:
        assert_broken(model, "structure is malformed|came with 1 arrays", by_call)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"offsets": [0, 3, 1 << 40]}, "reach past the [0-9]+ bytes"),
        ({"offsets": [1, 3, 6]}, "text offsets are not in order"),
        ({"payload": [0xFF, 0xFE, 0xFD, 1, 2, 3]}, "a text is not UTF-8"),
    ],
    ids=str,
)
def test_texts(broken: Callable[..., Model], change: Any, words: str) -> None:
    with broken("encoder", change) as model:
        assert_broken(model, words, lambda model: model(X))


# ---- control messages


MESSAGES: dict[str, tuple[list[Any], str]] = {
    "a type nobody knows": ([{"type": "nonsense"}], "a control message of type 'nonsense'"),
    "no type": ([{"no": 1}], "type"),
    "a failure of no call": ([{"type": "failure"}], "failure"),
    "a failure of a call that is no number": ([{"type": "failure", "id": "x"}], "failure"),
    "need of nothing": ([{"type": "need"}], "need"),
    "need of less than nothing": ([{"type": "need", "bytes": -5}], "need"),
    "need of a text": ([{"type": "need", "bytes": "much"}], "need"),
    "need of None": ([{"type": "need", "bytes": None}], "need"),
    "a segment without a descriptor": (
        [{"type": "segment", "id": 5, "size": 4096}],
        "a control message of type 'segment'",
    ),
    "a plan that is none": ([{"type": "plan"}], "a plan that cannot be read"),
    "forgetting what is no plan": ([{"type": "forget", "plans": 5}], "forget"),
    "forgetting nothing": ([{"type": "forget"}], "forget"),
    "room, which only a caller gives": (
        [{"type": "room", "id": 1, "size": 2}],
        "a control message of type 'room'",
    ),
    "loaded, again": ([{"type": "loaded"}], "a control message of type 'loaded'"),
    "that it gives up": ([{"type": "broken", "why": "just so"}], "the worker gave up: just so"),
    "bytes that are no message": (
        ["\x05\0\0\0\0\0\0\0\xc1\xc1\xc1\xc1\xc1"],
        "a message that is not msgpack",
    ),
    "a message without end": (["\xff\xff\xff\x7f\0\0\0\0"], "a frame of 2147483647 bytes"),
    "descriptors that never come": (
        ["\x01\0\0\0\x05\0\0\0\x80"],
        "a message announces 5 descriptors, 0 came",
    ),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_control_message(broken: Callable[..., Model], message: str) -> None:
    said, words = MESSAGES[message]
    if message == "no type":
        said = ["\x05\0\0\0\0\0\0\0\x81\xa2no\x01"]
    with broken("chatterbox", said) as model:
        by_infer(model)
        assert_broken(model, words)


@pytest.mark.parametrize("way", WAYS)
def test_a_control_message_however_it_was_called(
    broken: Callable[..., Model], way: Callable[[Model], Any]
) -> None:
    with broken("chatterbox", MESSAGES["need of a text"][0]) as model:
        by_infer(model)
        assert_broken(model, "need", way)


@pytest.mark.parametrize(
    "error",
    ["DELETE", None, {}, {"type": 5}, {"type": "E", "message": 1, "traceback": None}, "text"],
    ids=str,
)
def test_a_failure_that_says_nothing(broken: Callable[..., Model], error: Any) -> None:
    message = {"type": "failure", "id": 2, "kind": "model", "error": error}
    if error == "DELETE":
        del message["error"], message["kind"]
    forged = {"say": [message], "kind": wire.FAILURE}
    with broken("failing_forger", forged) as model:
        by_infer(model)
        assert_broken(model, "failure")


def test_need_of_more_than_there_is_is_refused_and_not_an_error(broken: Callable[..., Model]) -> None:
    with broken("chatterbox", [{"type": "need", "bytes": 1 << 62}]) as model:
        by_infer(model)
        used = model.stats().shared_memory
        with pytest.raises(opexec.CallTimeout):
            model.infer({"x": X}, timeout=0.1)
        assert model.stats().shared_memory == used


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("message", ["a type nobody knows", "need of a text", "bytes that are no message"])
def test_a_worker_that_is_broken_from_the_start(
    broken: Callable[..., Model], message: str, python: str
) -> None:
    said, words = MESSAGES[message]
    with pytest.raises(ProtocolError, match=words):
        broken("loud_while_loading", said, env=interpreter(python))
