"""A worker that writes garbage over the shared memory: its caller ends each call in time, never crashes, and the next worker answers right."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st

import opexec
from opexec import Model, OpexecError, RestartPolicy
from opexec.ipc import ring, wire
from tests.absent import in_ci

MODEL = f"{Path(__file__).with_name('garbage_models.py')}:stray"
X = np.arange(4.0)
NO_WORDS, NO_PATTERN = np.zeros((0, 2), np.uint64), np.zeros(0, np.uint8)

#: Seconds. A worker that has lost its way may answer nobody; then the deadline ends the call, and the time of grace the worker.
TIMEOUT, GRACE = 0.15, 0.02

#: Where a word counts: the lines of both sides, and the first records of either ring, by index.
LINES = [
    getattr(side, field)
    for side in (ring.CALLER, ring.WORKER)
    for field in ("tail", "head", "asleep", "rang")
]
RECORDS = [
    side.slots // 8 + word for side in (ring.CALLER, ring.WORKER) for word in range(4 * ring.SLOT_BYTES // 8)
]
VALUES = (
    st.sampled_from(
        [
            0,
            1,
            2,
            3,
            4,
            5,
            ring.SLOTS,
            ring.SLOTS + 1,
            1 << 40,
            (1 << 40) | 1,
            (1 << 63) - 1,
            1 << 63,
            (1 << 64) - 1,
        ]
    )
    | st.integers(0, 64)
    | st.integers(0, (1 << 64) - 1)
)


def examples(count: int) -> Callable[[Any], Any]:
    """So many, the same in every run; in CI more. `OPEXEC_TEST_SEED` asks for others there."""
    if not in_ci():
        return settings(max_examples=count)
    more = settings(max_examples=30, derandomize=False, database=None, print_blob=True)
    return lambda test: seed(int(os.environ.get("OPEXEC_TEST_SEED", "0")))(more(test))


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    restart = RestartPolicy(max_restarts=10_000, backoff=0.001, max_backoff=0.001)
    with opexec.load(MODEL, restart=restart, grace=GRACE) as model:
        yield model


def right(model: Model) -> None:
    """The model answers, by a worker that has written nothing anywhere."""
    answer = model.infer(
        {"x": X, "words": NO_WORDS, "pattern": NO_PATTERN, "everything": np.array(False)}, timeout=60
    )
    np.testing.assert_array_equal(answer["y"], X * 2)


def survive(model: Model, words: np.ndarray, pattern: np.ndarray, everything: bool = False) -> None:
    held = model.infer(
        {"x": X, "words": NO_WORDS, "pattern": NO_PATTERN, "everything": np.array(False)}, timeout=60
    )
    pid = model.workers[0].pid
    # The second one meets what the first has left.
    for its_words, its_pattern in ((words, pattern), (NO_WORDS, NO_PATTERN)):
        try:
            model.infer(
                {
                    "x": X,
                    "words": its_words,
                    "pattern": its_pattern,
                    "everything": np.array(everything),
                },
                timeout=TIMEOUT,
            )
        except OpexecError:
            pass
    assert held["y"].shape == X.shape  # its bytes are the worker's to spoil, not its bounds
    # Whatever it is up to now, this one is not to be trusted.
    if model.workers[0].pid == pid:
        model.restart()  # type: ignore[attr-defined]
    right(model)


@examples(12)
@given(st.lists(st.tuples(st.sampled_from(LINES + RECORDS), VALUES), min_size=1, max_size=6))
@example([(index, (1 << 64) - 1) for index in LINES])
@example([(index, 0) for index in LINES])
@example([(index, wire.RESULT) for index in RECORDS])
def test_words_of_the_channel(model: Model, words: list[tuple[int, int]]) -> None:
    survive(model, np.array(words, np.uint64), NO_PATTERN)


@examples(6)
@given(st.binary(min_size=1, max_size=257), st.booleans())
@example(b"\xff", True)
@example(b"\0", True)
@example(bytes(range(256)), False)
def test_bytes_over_whole_segments(model: Model, pattern: bytes, everything: bool) -> None:
    survive(model, NO_WORDS, np.frombuffer(pattern, np.uint8), everything)
