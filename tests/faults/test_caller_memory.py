"""A caller that has no more memory: the call ends with MemoryError, or OutOfSharedMemory, and once there is memory the next one is right.

Nothing is held on to, and the worker has no part in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MODEL = f"{Path(__file__).with_name('limited_models.py')}:giving"

CALLER = """
import asyncio, contextlib, gc, resource, sys
from concurrent.futures import Future
import numpy as np, opexec
from opexec.connection import collector

# Threads are there all the time: starting one takes memory of its own.
collector._LINGER_S = 1000
loop = asyncio.new_event_loop()
loop.run_until_complete(loop.run_in_executor(None, int))
source = sys.argv[1]
MUCH = 40 << 20  # past what malloc may keep back
COUNT = {"count": np.array(MUCH // 8)}
LETTERS = {"letters": np.array(MUCH)}
PIECES = (1 << 20, 1 << 16, 1 << 12)

def used(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))

@contextlib.contextmanager
def room_for(what, size):
    "No more than `size` further bytes of private memory (RLIMIT_DATA), or of address space (RLIMIT_AS)."
    which, field = (resource.RLIMIT_DATA, "VmData") if what == "data" else (resource.RLIMIT_AS, "VmSize")
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (used(field) + size, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))

WAYS = {
    "infer": lambda inputs: model.infer(inputs),
    "call": lambda inputs: model(**inputs),
    "submit": lambda inputs: model.submit(inputs).result(60),
    "infer_async": lambda inputs: loop.run_until_complete(model.infer_async(inputs)),
}

def assert_right(way, inputs):
    result = WAYS[way](inputs)
    count, letters = int(inputs.get("count", 0)), int(inputs.get("letters", 0))
    assert (result["y"] == np.arange(count)).all() and result["text"][0] == "a" * letters
    assert result["size"] == np.size(inputs.get("x", ()))

def fails(attempt, *expected):
    try:
        attempt()
    except expected as error:
        assert type(error).__name__ in ("MemoryError", "_ArrayMemoryError", "OutOfSharedMemory"), repr(error)
    else:
        raise AssertionError("there was room")

limits = resource.getrlimit(resource.RLIMIT_DATA)
taken = None

def take_everything(sizes):
    "What malloc and Python have kept back, in pieces of these sizes."
    global taken
    for size in sizes:
        try:
            while True:
                taken = (bytes(size), taken)
        except MemoryError:
            pass

def release():
    global taken
    while taken:
        _, taken = taken

def assert_nothing_held(pid):
    gc.collect()
    model.infer({})
    stats = model.stats()
    assert (stats.in_flight, stats.blocks_held) == (0, 0), stats
    assert [(worker.pid, worker.state) for worker in model.workers] == [(pid, "ready")]
    return stats.shared_memory
"""

MUCH_AT_ONCE = """
what = sys.argv[2]
inputs = {
    "a large input": {"x": np.ones(MUCH // 8)},
    "a text": {"x": np.array(["b" * MUCH], object)},
    "a large result": COUNT,
    "a text as result": LETTERS,
}[what]
limited, error = ("data", MemoryError) if "text" in what else ("address space", opexec.OutOfSharedMemory)
with opexec.load(source) as model:
    model.submit({}).result(60)
    pid = model.workers[0].pid
    shared = []
    for way in (*WAYS, *WAYS):
        with room_for(limited, MUCH // 4):
            fails(lambda: WAYS[way](inputs), error)
            assert_right(way, {"count": np.array(3), "letters": np.array(3), "x": np.ones(3)})
        shared.append(assert_nothing_held(pid))
    assert len(set(shared)) == 1, shared
    for way in WAYS:
        assert_right(way, inputs)
    assert_nothing_held(pid)
"""

NO_MESSAGES = """
way = sys.argv[2]
with opexec.load(source) as model:
    model.submit({}).result(60)
    pid = model.workers[0].pid
    for number in range(1, 4):
        inputs = {"count": np.array(number * MUCH // 8)}
        with room_for("data", 0):
            take_everything(PIECES)
            fails(lambda: WAYS[way](inputs), MemoryError)
            release()
        assert_right(way, inputs)
        assert_nothing_held(pid)
"""

NO_THREAD = """
inputs = {"count": np.array(100_000)}
with opexec.load(source) as model:
    pid = model.workers[0].pid
    shared = []
    for _ in range(8):
        with room_for("address space", 1 << 20):
            try:
                model.submit(inputs)
            except RuntimeError as error:
                assert "can't start new thread" in str(error), error
            else:
                raise AssertionError("there was room for its stack")
        assert_right("infer", inputs)
        shared.append(assert_nothing_held(pid))
    assert shared[-1] == shared[1], shared
    assert_right("submit", inputs)
    assert_nothing_held(pid)
"""

EMPTY = """
with opexec.load(source) as model:
    pid = model.workers[0].pid
    before = assert_nothing_held(pid)
    for _ in range(4):
        with room_for("address space", MUCH // 4):
            fails(lambda: model.empty("x", (MUCH,), np.uint8), opexec.OutOfSharedMemory)
            x = model.empty("x", (100,), np.uint8)
            assert model.infer({"x": x})["size"] == 100
        del x
        assert assert_nothing_held(pid) == before
    x = model.empty("x", (MUCH,), np.uint8)
    x[-1] = 1
    assert model.infer({"x": x})["size"] == MUCH
"""

NOTHING_LEFT = """
way = sys.argv[2]
SIZES = [*PIECES, *range(1024, 0, -16)]

def with_next_to_nothing(left, call):
    "What comes of a call where only so many bytes are to be had: its result, or its error."
    piece = bytes(left)
    limit = (used("VmData"), limits[1])
    try:
        resource.setrlimit(resource.RLIMIT_DATA, limit)
        take_everything(SIZES)
        del piece
        return call()
    except BaseException as error:
        return error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)

small = {"count": np.array(30), "letters": np.array(30), "x": np.ones(30)}
with opexec.load(source) as model:
    call = lambda: model.submit(small) if way == "submit" else WAYS[way](small)
    pid = model.workers[0].pid
    shared = []
    errors = []
    for left in [*range(0, 4096, 128), 1 << 16]:
        for _ in range(2):
            assert_right(way, small)
        shared.append(assert_nothing_held(pid))
        outcome = with_next_to_nothing(left, call)
        release()
        if isinstance(outcome, Future):  # nobody could complete it without memory
            outcome = outcome.exception(60)
        errors.append(isinstance(outcome, MemoryError))
        assert errors[-1] or not isinstance(outcome, BaseException), (left, outcome)
        del outcome
    assert_right(way, small)
    assert assert_nothing_held(pid) == shared[0], shared
    assert errors[0] and not errors[-1], errors
"""


def run(code: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLER + code, MODEL, *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", ["a large input", "a text", "a large result", "a text as result"])
def test_what_takes_much_memory(what: str) -> None:
    """Where address space ends, a segment cannot be mapped; where private memory ends, a text cannot be made."""
    run(MUCH_AT_ONCE, what)


def test_empty() -> None:
    run(EMPTY)


@pytest.mark.parametrize("way", ["infer", "call", "submit", "infer_async"])
def test_no_memory_to_read_what_the_worker_says(way: str) -> None:
    """It asks for room for its outputs, and its caller has none for the message: whoever reads for the call ends it."""
    run(NO_MESSAGES, way)


def test_a_thread_that_cannot_be_started() -> None:
    run(NO_THREAD)


@pytest.mark.parametrize("way", ["infer", "submit"])
def test_a_call_with_next_to_nothing_left(way: str) -> None:
    run(NOTHING_LEFT, way)
