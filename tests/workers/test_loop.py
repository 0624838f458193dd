"""What a worker does after its handshake, seen from the caller's end of a real channel: it answers every call, and survives what a model does."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import struct
import sys
import threading

import numpy as np
import pytest

from opexec.ipc import PROTOCOL, strategies, wire
from opexec.ipc.arena import Arena
from opexec.ipc.channel import Channel
from opexec.ipc.control import Control
from opexec.ipc.faults import PeerGone, ProtocolError
from opexec.ipc.packer import Packer
from opexec.ipc.ring import CALLER, CAPACITY, CHANNEL_BYTES, WORKER, write_header
from opexec.ipc.segment import PAGE, Segment
from opexec.workers import loop, platforms
from opexec.workers.platforms.python import Model
from opexec.workers.structure import Structure, unflatten


class Caller:
    """The caller's end, and a worker's loop in a thread."""

    def __init__(self, wait="adaptive", room=1 << 20):
        libc = ctypes.CDLL(None)  # os.eventfd came with Python 3.10
        self._bells = [libc.eventfd(0, os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(2)]
        self._ids = itertools.count()
        self._made = []
        self._sent = 0
        self._offered = set()
        #: Messages of the worker, those of its requests for room too.
        self.messages = []
        self.needs = []
        #: What a request for room is answered with: a function of the bytes, which gives the size or a text that says why not.
        self.grant = lambda size: size
        self.released = []
        #: What ended the worker's loop: an exception, or None if it returned.
        self.ended = "not yet"
        own, theirs = socket.socketpair()
        self.control = Control(own)
        segment = self.segment(CHANNEL_BYTES)
        write_header(segment.map, PROTOCOL)
        self.words = memoryview(segment.map).cast("Q")
        self.channel = Channel(segment.map, CALLER, WORKER, self.control, self._bells, self._came)
        self.packer = Packer(Arena(lambda size: self.segment(max(size, 64 * PAGE))))
        self.control.send(
            {"type": "channel", "size": segment.size, "wait": wait},
            [segment.fd, self._bells[0], self._bells[1]],
        )
        if room:
            self._give(room)
        self._thread = threading.Thread(target=self._serve, args=(Control(theirs),))
        self._thread.start()

    def segment(self, size):
        self._made.append(Segment.create(next(self._ids), size))
        return self._made[-1]

    def _serve(self, control):
        try:
            loop.serve(control)
            self.ended = None
        except BaseException as error:
            self.ended = error
        finally:
            control.close()

    def load(self, source="model"):
        """Have the worker load the model; returns its answer."""
        self.control.send(
            {"type": "load", "platform": "python", "source": source, "options": {"in_process": True}}
        )
        return self.message("loaded", "failed")

    def message(self, *kinds):
        """The next message of one of the `kinds`."""
        while True:
            for message in self.messages:
                if message["type"] in kinds:
                    self.messages.remove(message)
                    return message
            self.channel.handle(*self.control.receive())

    def _came(self, message, fds):
        assert not fds
        self.messages.append(message)
        if message["type"] == "need":
            self.needs.append(message["bytes"])
            granted = self.grant(message["bytes"])
            released, self.released = self.released, []
            if isinstance(granted, str):
                self.control.send({"type": "refused", "why": granted, "released": released})
            else:
                self._give(granted, released)

    def _give(self, size, released=()):
        segment = self.segment(size)
        self.channel.segments[segment.id] = segment
        message = {"type": "room", "id": segment.id, "size": segment.size, "released": list(released)}
        self.control.send(message, [segment.fd])

    # Calls

    def send(self, inputs, positional=0, places=(), release=0):
        """Send a call; returns its block. `places` maps names of inputs to where they lie outside the block."""
        names, arrays = tuple(inputs), list(inputs.values())
        outside = tuple(index for index, name in enumerate(names) if name in places)
        block = self.packer.pack(names, arrays, positional, outside)
        self.offer_segments()
        self.channel.tell(block.plan, self.packer)
        listed = [places[names[index]] for index in outside]
        if len(listed) > wire.PLACES_IN_RECORD:
            block.plan.write_table(block.extent.segment.map, block.extent.offset, listed)
            listed = []
        self.publish(wire.CALL, block.plan.id, block.place, release, listed)
        return block

    def offer_segments(self):
        for id, segment in self.packer.arena.segments.items():
            if id not in self._offered:
                self._offered.add(id)
                self.channel.offer(segment)

    def publish(self, kind, plan, place, release=0, places=()):
        """Publish a record of that kind, whatever it says; returns its id."""
        self._sent += 1
        fields = (kind, self._sent, plan, place, release, 0, 0, 0) + tuple(places)
        while not publish(self.channel.producer, fields):
            self.channel.bell.ring()
        self.channel.bell.ring()
        return self._sent

    def publish_releases(self, places):
        """Publish release records for the blocks at `places`."""
        for start in range(0, len(places), wire.RELEASES_IN_RECORD):
            fields = [wire.RELEASE] + [
                place | wire.PRESENT for place in places[start : start + wire.RELEASES_IN_RECORD]
            ]
            assert publish(self.channel.producer, fields)
        self.channel.bell.ring()

    def record(self):
        """The next record of the worker's."""
        consumer = self.channel.consumer
        while True:
            record = consumer.peek(wire.HEAD)
            if record is not None:
                consumer.advance()
                return record
            if self.channel.bell.sleep(consumer.head, 100):
                self.channel.handle_control()

    def result(self):
        """What the model returned for the oldest call: ``(result, record)``. The result lies in the worker's block."""
        record = self.record()
        if record[0] == wire.FAILURE:
            message = self.message("failure")
            assert message["id"] == record[1]
            raise AssertionError("the call failed: {}".format(message["error"]["traceback"]))
        assert record[0] == wire.RESULT
        plan = self.channel.plan(record[2])
        views = plan.views(*self.channel.locate_block(record[3], plan.size))
        for index in plan.texts:
            views[index] = plan.decode(index, views[index])
        structure = Structure.from_plain(plan.note)
        assert structure.names == plan.names
        return unflatten(structure, views), record

    def call(self, inputs, positional=0, places=(), release=True):
        """One call from end to end: a copy of the result, whose block is released with the next call's record."""
        block = self.send(inputs, positional, places, self.released.pop() if self.released else 0)
        result, record = self.result()
        result = copied(result)
        if release:
            self.released.append(record[3] | wire.PRESENT)
        self.packer.give(block)
        return result

    def failure(self, inputs):
        """The failure of one call."""
        self.packer.give(self.send(inputs))
        record = self.record()
        message = self.message("failure")
        assert (record[0], record[1]) == (wire.FAILURE, message["id"]) and record[2:] == (0,) * 6
        return message

    # The end

    def broken(self):
        """Why the worker gave up."""
        message = self.message("broken")
        self._thread.join()
        assert isinstance(self.ended, ProtocolError) and str(self.ended) == message["why"]
        return message["why"]

    def close(self):
        with contextlib.suppress(PeerGone):
            self.control.send({"type": "bye"})
        self._thread.join()
        self.control.close()
        for segment in self._made:
            segment.close()
        for fd in self._bells:
            os.close(fd)


ANY_RECORD = struct.Struct("=16Q")


def publish(producer, fields):
    """Publish a record of any kind: up to 16 words, the others 0. False if the ring is full."""
    return producer.publish_long(ANY_RECORD, *fields, *[0] * (16 - len(fields)))


def copied(result):
    if isinstance(result, np.ndarray):
        return result.copy()
    if isinstance(result, dict):
        return {name: copied(value) for name, value in result.items()}
    return type(result)(map(copied, result)) if isinstance(result, (list, tuple)) else result


@pytest.fixture
def caller(monkeypatch):
    """``caller(model)`` starts a worker with that model, a function or a platform's object, and gives the caller's end."""
    started = []

    def start(model, **settings):
        platform = model if isinstance(model, platforms.Platform) else Model(model)
        monkeypatch.setattr(platforms, "load", lambda *arguments: platform)
        started.append(Caller(**settings))
        assert started[-1].load()["type"] == "loaded"
        return started[-1]

    yield start
    for one in started:
        one.close()


# Loading


@pytest.fixture
def starting():
    """Callers whose worker has no model yet."""
    started = []

    def start():
        started.append(Caller())
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_a_model_file_is_loaded_and_called(starting, tmp_path):
    path = tmp_path / "doubling.py"
    path.write_text("def factory():\n    return lambda x, by=2: {'product': x * by}\n")
    end = starting()
    loaded = end.load("{}:factory".format(path))
    assert (loaded["type"], loaded["framework"], loaded["inputs"], loaded["outputs"]) == (
        "loaded",
        "python",
        None,
        None,
    )
    assert loaded["version"] == "{}.{}.{}".format(*sys.version_info)
    assert end.call({"x": np.arange(3.0)})["product"].tolist() == [0, 2, 4]
    assert end.call({"x": np.arange(3.0), "by": np.array(5)})["product"].tolist() == [0, 5, 10]


@pytest.mark.parametrize(
    "source, kind, says",
    [
        ("raise RuntimeError('no weights')", "RuntimeError", "no weights"),
        ("import sys; sys.exit('stop')", "SystemExit", "stop"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("def factory(): raise OSError(5, 'no\\udcff file')", "OSError", "no"),
        ("def other(): pass", "AttributeError", "factory"),
        ("def factory(", "SyntaxError", ""),
    ],
)
def test_whatever_loading_raises_is_the_answer(starting, tmp_path, source, kind, says):
    path = tmp_path / "faulty.py"
    path.write_text(source + "\n")
    end = starting()
    failed = end.load("{}:factory".format(path))
    assert (
        failed["type"] == "failed" and failed["error"]["type"] == kind and says in failed["error"]["message"]
    )
    end._thread.join()
    assert end.ended is None


# Results

RESULTS = [
    np.arange(6.0).reshape(2, 3),
    {"a": np.arange(3), "b": np.ones((2, 2), np.float32)},
    (np.arange(3), [np.zeros(0), {"deep": np.array(1.5)}]),
    {"number": 5, "ratio": 0.5, "flag": True, "text": "é\0", "raw": b"\0\xff", "nothing": None},
    [np.float32(1.5), np.datetime64("2020-01-01")],
    np.array([["a", "bb"], ["", "é"]], object),
    np.array([b"\0\0", b""], object),
    np.array(["fixed", "width"]),
    np.zeros((3, 0, 2), np.int8),
    np.array(7),
    np.arange(24).reshape(2, 3, 4).T,
    np.arange(10)[::-2],
    np.arange(5, dtype=">i4"),
    np.zeros(2, [("x", "f4"), ("y", "i2", (2,))]),
]


def same(one, other):
    if isinstance(one, np.ndarray):
        return (
            one.shape == other.shape
            and one.dtype == other.dtype.newbyteorder("=")
            and repr(one.tolist()) == repr(other.tolist())
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_results_of_every_form_come_back(caller):
    end = caller(lambda which: RESULTS[int(which)])
    for _ in range(2):
        for index, expected in enumerate(RESULTS):
            assert same(end.call({"which": np.array(index)}), expected), expected


def test_inputs_come_by_position_and_by_name(caller):
    end = caller(lambda *args, **kwargs: {"args": len(args), "names": np.array(sorted(kwargs), object)})
    inputs = {"": np.zeros(1), "1": np.zeros(2), "named": np.zeros(3)}
    assert end.call(inputs, positional=2)["args"] == 2
    assert end.call(inputs, positional=2)["names"].tolist() == ["named"]
    assert end.call({})["args"] == 0


def test_text_inputs(caller):
    end = caller(lambda x: {"type": type(x.ravel().tolist()[0]).__name__, "shape": np.array(x.shape), "x": x})
    for elements in (["a", "é" * 500, "\ud800\0", ""], [b"\0", b"\xff" * 900, b"", b"x"], ["short"] * 4):
        array = np.empty((2, 2), object)
        array.ravel()[:] = elements
        for _ in range(2):
            came = end.call({"x": array})
            assert came["x"].ravel().tolist() == elements and came["shape"].tolist() == [2, 2]
            assert came["type"] == type(elements[0]).__name__


def test_texts_beside_numbers_are_read_anew_for_each_call(caller):
    end = caller(lambda text, number: {"said": "{} {}".format(text[0], number)})
    for number in range(5):
        text = np.array(["call {}".format(number)], object)
        assert end.call({"text": text, "number": np.array(number)})["said"] == "call {} {}".format(
            number, number
        )


def test_inputs_are_not_copied(caller):
    seen = []
    end = caller(lambda x: seen.append(x) or x.sum())
    block = end.send({"x": np.zeros(1000)})
    end.result()
    block.views[0][...] = 5
    assert seen[0].tolist() == [5] * 1000, "the model saw a copy"


def test_outputs_never_lie_where_inputs_do(caller):
    end = caller(lambda x: {"whole": x, "part": x[1:3], "turned": x[::-1]})
    block = end.send({"x": np.arange(4.0)})
    result, record = end.result()
    block.views[0][...] = -1
    assert [result[name].tolist() for name in ("whole", "part", "turned")] == [
        [0, 1, 2, 3],
        [1, 2],
        [3, 2, 1, 0],
    ]
    assert record[3] >> wire.PLACE_BITS != block.place >> wire.PLACE_BITS


def test_a_result_says_how_much_was_copied(caller):
    end = caller(lambda n: {"a": np.zeros(int(n)), "b": np.zeros(3, np.int8)})
    for size in (0, 10, 5000):
        end.send({"n": np.array(size)})
        assert end.result()[1][5] == 8 * size + 3


# Several calls


def test_it_waits_as_its_caller_asks(caller, monkeypatch):
    """What it then does is `Adaptive`'s matter, and tested there."""
    asked = []

    def strategy(name, bell, answers, crowded):
        asked.append((name, answers, crowded))
        return strategies.strategy(name, bell, answers, crowded)

    monkeypatch.setattr(loop, "strategy", strategy)
    one = caller(lambda x: x)
    ((name, answers, crowded),) = asked
    assert name == "adaptive" and answers
    for told in (True, False, True):
        one.channel.bell.tell_crowded(told)
        assert crowded() is told


def test_calls_wait_in_the_ring_and_are_answered_in_order(caller):
    go_on, running = threading.Event(), threading.Event()

    def model(x):
        running.set()
        assert go_on.wait(60)
        return x * 10

    end = caller(model)
    blocks = [end.send({"x": np.array(number)}) for number in range(5)]
    assert running.wait(60) and len({block.place for block in blocks}) == 5
    assert end.channel.consumer.peek(wire.HEAD) is None
    go_on.set()
    answers = [end.result() for _ in range(5)]
    assert [(int(result), record[1]) for result, record in answers] == [
        (10 * number, number + 1) for number in range(5)
    ]


def test_more_answers_than_a_ring_holds_wait_for_the_caller(caller):
    end = caller(lambda x: x + 1)
    count = CAPACITY + 50
    block = end.packer.pack(("x",), [np.array(1)], 0)
    end.offer_segments()
    end.channel.tell(block.plan, end.packer)
    for _ in range(count):
        end.publish(wire.CALL, block.plan.id, block.place)
    while end.words[WORKER.tail] < CAPACITY:
        os.sched_yield()
    places = set()
    for number in range(count):
        result, record = end.result()
        assert (int(result), record[1]) == (2, number + 1)
        places.add(record[3])
    assert len(places) == count, "a block was reused that was never released"


@pytest.mark.parametrize("wait", ["adaptive", "block", "spin"])
def test_a_sleeping_worker_is_woken_by_a_call(caller, wait):
    end = caller(lambda x: x + 1, wait=wait)
    for number in range(5):
        while not end.words[WORKER.asleep] & 1:
            os.sched_yield()
        assert int(end.call({"x": np.array(number)})) == number + 1


def test_what_is_prepared_for_a_place_serves_all_calls_there(caller):
    class Counting(platforms.Platform):
        bound = 0

        def bind(self, args, kwargs):
            self.bound += 1
            return kwargs["x"]

        def run(self, bound, reserve):
            return bound + 1

    platform = Counting()
    end = caller(platform)
    for number in range(20):
        assert end.call({"x": np.arange(3) + number}).tolist() == [number + 1, number + 2, number + 3]
    assert platform.bound == 1
    held = [end.send({"x": np.arange(3) + number}) for number in range(4)]
    assert [end.result()[0].tolist()[0] for _ in held] == [1, 2, 3, 4]
    assert platform.bound == 4


def test_many_places_and_many_signatures_do_not_pile_up(caller):
    end = caller(lambda x: x.sum())
    segment = end.packer.arena.allocate(64 * 700)
    for number in range(600):
        place = segment.place + 64 * number
        view = np.ndarray((3,), "i8", segment.segment.map, segment.offset + 64 * number)
        view[...] = number
        assert int(end.call({"x": view}, places={"x": place})) == 3 * number
    for size in range(1, 600):
        assert int(end.call({"x": np.ones(size, "i8")})) == size


# Failures


def raising(error):
    def model(x):
        if x.any():
            raise error
        return x

    return model


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Stubborn(BaseException):
    pass


FAILURES = [
    (ValueError("bad input"), "ValueError", "bad input"),
    (SystemExit(3), "SystemExit", "3"),
    (KeyboardInterrupt(), "KeyboardInterrupt", ""),
    (GeneratorExit(), "GeneratorExit", ""),
    (MemoryError(), "MemoryError", ""),
    (Stubborn("own"), "Stubborn", "own"),
    (OSError(2, "no such file", "caf\udce9.txt"), "FileNotFoundError", ""),
    (ValueError("\ud800"), "ValueError", ""),
    (ValueError("x" * (20 << 20)), "ValueError", "xxx"),
    (Unprintable(), "Unprintable", ""),
]


@pytest.mark.parametrize("error, kind, says", FAILURES, ids=[repr(error)[:40] for error, _, _ in FAILURES])
def test_what_a_model_raises_is_told_and_the_next_call_works(caller, error, kind, says):
    end = caller(raising(error))
    for _ in range(2):
        failure = end.failure({"x": np.ones(3)})
        assert failure["kind"] == "model"
        assert failure["error"]["type"].rpartition(".")[2] == kind and says in failure["error"]["message"]
        assert end.call({"x": np.zeros(3)}).tolist() == [0, 0, 0]


def test_a_failure_has_the_models_traceback_and_not_the_workers(caller):
    def model(x):
        return deeper(x)

    def deeper(x):
        return 1 / int(x)

    error = caller(model).failure({"x": np.array(0)})["error"]
    assert error["type"] == "ZeroDivisionError" and "in deeper" in error["traceback"]
    assert os.path.join("workers", "loop.py") not in error["traceback"]


@pytest.mark.parametrize(
    "result, says",
    [
        pytest.param({"a": {"b": object()}}, "'a/b' is an object", id="an object"),
        ([np.array([1, None], object)], "element 0 is of type int"),
        (np.zeros(2, [("a", "O")]), "Python objects"),
        ({"a": np.zeros(1), 5: {1, 2}}, "'5' is a set"),
        (1 << 70, "beyond 64 bits"),
        ({1: np.zeros(1), "1": np.zeros(1)}, "two of the model's outputs are named '1'"),
    ],
    ids=repr,
)
def test_a_result_that_cannot_travel_is_a_failure_that_names_it(caller, result, says):
    end = caller(lambda x: result if x else x)
    for _ in range(2):
        failure = end.failure({"x": np.array(1)})
        assert failure["kind"] == "model" and says in failure["error"]["message"]
        assert int(end.call({"x": np.array(0)})) == 0


def test_an_output_name_that_is_no_text_is_a_failure_or_comes_back(caller):
    end = caller(lambda x: {"\ud800": x} if x else x)
    end.send({"x": np.array(1)})
    record = end.record()
    if record[0] == wire.FAILURE:
        assert end.message("failure")["kind"] == "model"
    else:
        assert end.channel.plan(record[2]).names == ("\ud800",)
    assert int(end.call({"x": np.array(0)})) == 0


def test_names_too_long_for_a_message_are_a_failure(caller):
    end = caller(lambda x: {"n" * (20 << 20): x} if x else x)
    assert end.failure({"x": np.array(1)})["kind"] == "model"
    assert int(end.call({"x": np.array(0)})) == 0


SPOILING = {
    "shape": lambda x: setattr(x, "shape", (3, 2)),
    "flattened": lambda x: setattr(x, "shape", (-1,)),
    "dtype": lambda x: setattr(x, "dtype", np.int64),
    "read-only": lambda x: x.setflags(write=False),
}


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
@pytest.mark.parametrize("how", sorted(SPOILING))
@pytest.mark.parametrize("then", ["returns", "raises", "returns nothing that can travel"])
def test_a_model_that_spoils_its_input_spoils_no_later_one(caller, how, then):
    seen = []

    def model(x):
        seen.append((x.shape, x.dtype, x.flags.writeable))
        SPOILING[how](x)
        if then == "raises":
            raise ValueError("spoilt")
        return 5 if then == "returns" else object()

    end = caller(model)
    for _ in range(3):
        if then == "returns":
            assert end.call({"x": np.zeros((2, 3))}) == 5
        else:
            end.failure({"x": np.zeros((2, 3))})
    assert seen == [((2, 3), np.dtype("f8"), True)] * 3


# Outputs that the platform writes where they are to lie


class Reserving(platforms.Platform):
    """Reserves one output as long as its input says, and does what `then` says."""

    def __init__(self, then):
        self.then = then
        self.specs = {}

    def bind(self, args, kwargs):
        return kwargs["x"]

    def run(self, x, reserve):
        size = int(x.sum())
        specs = self.specs.setdefault(size, (("y", np.dtype("f8"), (size,)), ("z", np.dtype("i1"), ())))
        arrays = reserve(specs)
        assert [(name, one.dtype, one.shape) for name, one in arrays.items()] == list(specs)
        for array in arrays.values():
            assert array.ctypes.data % wire.ALIGNMENT == 0 and array.flags.c_contiguous
            array[...] = 7
        if self.then == "twice":
            arrays = reserve((("y", np.dtype("f8"), (size,)),))
            arrays["y"][...] = 8
        if self.then == "raises":
            raise ValueError("reserved in vain")
        if self.then == "copies":
            return {name: arrays[name] for name in reversed(list(arrays))}
        return np.zeros(3) if self.then == "forgets" else arrays


def test_reserved_outputs_are_not_copied(caller):
    end = caller(Reserving("returns"))
    for size in (1000, 1000, 0, 1000):
        end.send({"x": np.array([size])})
        result, record = end.result()
        assert result["y"].tolist() == [7.0] * size and int(result["z"]) == 7
        assert record[5] == 0, "something was copied"


@pytest.mark.parametrize("then", ["returns", "twice", "copies", "forgets", "raises"])
def test_reserved_memory_is_never_lost(caller, then):
    end = caller(Reserving(then))
    for _ in range(300):
        if then == "raises":
            end.failure({"x": np.array([2000])})
        else:
            result = end.call({"x": np.array([2000])})
            if then != "forgets":
                assert result["y"].tolist() == [8.0 if then == "twice" else 7.0] * 2000
    assert not end.needs, "300 results of 16 kB, each released, need more than the 1 MiB there was"


def test_reserved_memory_that_is_returned_in_another_dict_is_copied_before_it_is_used_again(caller):
    end = caller(Reserving("copies"), room=8 * PAGE)
    end.grant = lambda size: "no more"
    for _ in range(5):  # the room is so tight that the copy would land on what is copied
        block = end.send({"x": np.array([2500])})
        record = end.record()
        if record[0] == wire.FAILURE:
            assert end.message("failure")["kind"] == "room"
        else:
            plan = end.channel.plan(record[2])
            z, y = plan.views(*end.channel.locate_block(record[3], plan.size))
            assert plan.names == ("z", "y") and int(z) == 7 and set(y.tolist()) == {7.0}
            end.publish_releases([record[3]])
        end.packer.give(block)


# Memory


def test_small_results_need_no_more_room_than_there_was_at_the_start(caller):
    end = caller(lambda x: x + 1)
    for _ in range(50):
        end.call({"x": np.arange(1000)})
    assert end.needs == []


def test_a_result_larger_than_the_room_asks_for_more(caller):
    end = caller(lambda n: np.full(int(n), 3, np.uint8), room=0)
    for size in (10, 5 * PAGE, 200 * PAGE):
        result = end.call({"n": np.array(size)}, release=False)
        assert result.shape == (size,) and result.min() == result.max() == 3
    assert len(end.needs) == 3 and end.needs[2] >= 200 * PAGE


def test_released_blocks_are_used_again(caller):
    end = caller(lambda x: x + 1)
    places = set()
    for _ in range(100):
        block = end.send({"x": np.zeros(3)}, release=end.released.pop() if end.released else 0)
        _, record = end.result()
        places.add(record[3])
        end.released.append(record[3] | wire.PRESENT)
        end.packer.give(block)
    assert len(places) == 1


def test_a_block_that_is_held_is_left_alone(caller):
    end = caller(lambda x: x + 1)
    block = end.send({"x": np.arange(3.0)})
    held, _ = end.result()
    end.packer.give(block)
    for number in range(200):
        end.call({"x": np.arange(3.0) + number})
    assert held.tolist() == [1, 2, 3]


@pytest.mark.parametrize("count", [1, 14, 15, 16, 100])
def test_many_blocks_are_released_at_once(caller, count):
    end = caller(lambda x: x + 1)
    for _ in range(3):
        places = set()
        for number in range(count):
            end.send({"x": np.array(number)})
        for number in range(count):
            result, record = end.result()
            assert int(result) == number + 1
            places.add(record[3])
        assert len(places) == count
        end.publish_releases(sorted(places))
    assert end.needs == []
    end.call({"x": np.array(0)})


def test_refused_room_is_a_failure_of_its_own_kind_and_smaller_calls_work(caller):
    end = caller(lambda n: np.full(int(n), 3, np.uint8), room=4 * PAGE)
    end.grant = lambda size: "the limit is {}".format(4 * PAGE)
    for _ in range(3):
        failure = end.failure({"n": np.array(40 * PAGE)})
        assert failure["kind"] == "room" and "the limit is 16384" in failure["error"]["message"]
        assert end.call({"n": np.array(2 * PAGE)}).shape == (2 * PAGE,)


def test_what_is_released_together_with_a_refusal_makes_room(caller):
    end = caller(lambda n: np.full(int(n), 3, np.uint8), room=4 * PAGE)
    end.grant = lambda size: "no more"
    block = end.send({"n": np.array(3 * PAGE)})
    _, record = end.result()
    end.packer.give(block)
    end.released = [record[3] | wire.PRESENT]
    block = end.send({"n": np.array(4 * PAGE)})
    assert end.result()[0].shape == (4 * PAGE,)


def test_a_later_segment_of_the_callers(caller):
    end = caller(lambda x: x.sum())
    for size in (10, 100 * PAGE, 300 * PAGE):
        assert end.call({"x": np.ones(size, np.uint8)}) == size
    assert end.packer.arena.count > 1


# Tensors outside the block


@pytest.mark.parametrize("count", [1, 8, 9, 100])
def test_tensors_outside_the_block(caller, count):
    end = caller(
        lambda inside, **others: {
            "inside": inside,
            "sums": np.array([others[name].sum() for name in sorted(others)]),
        }
    )
    extent = end.packer.arena.allocate(64 * count)
    names = ["x{:03d}".format(index) for index in range(count)]
    arrays, places = {"inside": np.arange(4)}, {}
    for index, name in enumerate(names):
        offset = 64 * index + index % 3  # slices lie anywhere
        arrays[name] = np.ndarray((4,), "u1", extent.segment.map, extent.offset + offset)
        places[name] = extent.place + offset
    for round in range(3):
        for index, name in enumerate(names):
            arrays[name][...] = (index + round) % 50
        came = end.call(arrays, places=places)
        assert came["inside"].tolist() == [0, 1, 2, 3]
        assert came["sums"].tolist() == [4 * ((index + round) % 50) for index in range(count)]


def test_a_call_of_tensors_outside_alone(caller):
    end = caller(lambda x: x * 2)
    extent = end.packer.arena.allocate(256)
    view = np.ndarray((3,), "f8", extent.segment.map, extent.offset)
    view[...] = 4
    assert end.call({"x": view}, places={"x": extent.place}).tolist() == [8, 8, 8]
    view[...] = 5
    assert end.call({"x": view}, places={"x": extent.place}).tolist() == [10, 10, 10]


# A caller that breaks the protocol

A_PLAN = {"type": "plan", "id": 1, "tensors": [["x", "<f8", [2], 16, 0]], "note": 0, "size": 64, "table": -1}
OUTSIDE_PLAN = dict(A_PLAN, tensors=[["x", "<f8", [2], 16, -1]])


def breach(how):
    """A record that is wrong in one way, as ``(plan message, fields of the record, what the worker says)``."""
    return {
        "kind 0": (A_PLAN, (0, 1, 1, "block", 0), "kind 0"),
        "kind of the worker's": (A_PLAN, (wire.RESULT, 1, 1, "block", 0), "kind 3"),
        "plan": (A_PLAN, (wire.CALL, 1, 77, "block", 0), "plan 77, which was never announced"),
        "segment": (
            A_PLAN,
            (wire.CALL, 1, 1, 99 << wire.PLACE_BITS, 0),
            "segment 99, which was never announced",
        ),
        "offset": (A_PLAN, (wire.CALL, 1, 1, "past the end", 0), "64 bytes at"),
        "alignment": (A_PLAN, (wire.CALL, 1, 1, "odd", 0), "not on 64 bytes"),
        "release": (
            A_PLAN,
            (wire.CALL, 1, 1, "block", 64 | wire.PRESENT),
            "releases 0x41, which it does not hold",
        ),
        "release record": (
            A_PLAN,
            (wire.RELEASE, 64 | wire.PRESENT, 0, 0, 0),
            "releases 0x41, which it does not hold",
        ),
        "place outside": (
            OUTSIDE_PLAN,
            (wire.CALL, 1, 1, "block", 0, 0, 0, 0, 99 << wire.PLACE_BITS),
            "segment 99",
        ),
        "offset outside": (
            OUTSIDE_PLAN,
            (wire.CALL, 1, 1, "block", 0, 0, 0, 0, "past the end"),
            "16 bytes at",
        ),
    }[how]


BREACHES = [
    "kind 0",
    "kind of the worker's",
    "plan",
    "segment",
    "offset",
    "alignment",
    "release",
    "release record",
    "place outside",
    "offset outside",
]


@pytest.mark.parametrize("how", BREACHES)
def test_a_record_that_is_wrong_ends_the_worker_which_says_why(caller, how):
    end = caller(lambda x: x)
    extent = end.packer.arena.allocate(64)
    end.offer_segments()
    plan, fields, says = breach(how)
    end.control.send(plan)
    places = {
        "block": extent.place,
        "past the end": extent.segment.id << wire.PLACE_BITS | extent.segment.size,
        "odd": extent.place + 8,
    }
    fields = [places.get(field, field) for field in fields]
    assert publish(end.channel.producer, fields)
    end.channel.bell.ring()
    assert says in end.broken()


def test_a_block_is_released_once(caller):
    end = caller(lambda x: x)
    end.send({"x": np.zeros(3)})
    _, record = end.result()
    end.publish_releases([record[3]])
    end.publish_releases([record[3]])
    assert "releases {:#x}".format(record[3] | wire.PRESENT) in end.broken()


@pytest.mark.parametrize("word", ["tail", "head"])
def test_an_impossible_cursor_ends_the_worker_which_says_why(caller, word):
    end = caller(lambda x: x)
    end.call({"x": np.zeros(3)})
    end.words[getattr(CALLER, word)] = 2**40
    if word == "head":  # looked at when there is an answer
        end.send({"x": np.zeros(3)})
    end.channel.bell.ring()
    assert "ring: " in end.broken()


@pytest.mark.parametrize(
    "message", [{"type": "loaded"}, {"type": "plan"}, {"type": "room"}, {"type": "forget"}], ids=repr
)
def test_a_message_that_makes_no_sense_ends_the_worker_which_says_why(caller, message):
    end = caller(lambda x: x)
    end.control.send(message)
    assert end.broken()


# The end


def test_a_worker_leaves_when_the_caller_says_goodbye(caller):
    end = caller(lambda x: x)
    end.call({"x": np.zeros(3)})
    end.control.send({"type": "bye"})
    end._thread.join()
    assert end.ended is None


@pytest.mark.parametrize("when", ["idle", "running"])
def test_a_worker_leaves_when_the_caller_is_gone(caller, when):
    go_on = threading.Event()
    end = caller(lambda x: go_on.wait(60))
    if when == "running":
        end.send({"x": np.zeros(3)})
    end.control.close()
    go_on.set()
    end._thread.join()
    assert end.ended is None
