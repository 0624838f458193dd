"""What a worker prints beyond its share is counted, not shown: nothing is lost without being told, and the tail has the last lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import opexec
from opexec.processes.log_limit import PAUSE_S, Limiter, LogLimit, Suppressed
from opexec.processes.logs import TAIL_LINES, WorkerLogs
from tests.loaded import source

logger = logging.getLogger("opexec.worker")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno == logging.INFO]

    @property
    def suppressed(self) -> list[tuple[int, int]]:
        return [
            (record.suppressed_lines, record.suppressed_bytes)  # type: ignore[attr-defined]
            for record in self.records
            if record.levelno == logging.WARNING
        ]


@pytest.fixture()
def records() -> Iterator[Records]:
    handler, level = Records(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


def test_a_burst_then_a_pause_then_what_came_together() -> None:
    clock = Clock()
    limiter = Limiter(LogLimit(lines=10, bytes=10_000, burst=3), clock)
    assert limiter.admit([5] * 31) == (30, None)
    assert limiter.admit([5] * 4) == (0, None)
    clock.now += PAUSE_S / 2
    assert limiter.admit([5]) == (0, None), (
        "tokens that came in the middle of the pause are not for single lines"
    )
    assert limiter.take_suppressed() is None
    clock.now += PAUSE_S / 2
    assert limiter.admit([5] * 11) == (10, Suppressed(6, 30))
    clock.now += 1000
    assert limiter.take_suppressed() == Suppressed(1, 5)
    assert not limiter.suppressing
    assert limiter.room() == 30
    assert limiter.admit([5] * 30) == (30, None)


def test_bytes_are_limited_as_lines_are() -> None:
    clock = Clock()
    limiter = Limiter(LogLimit(lines=1000, bytes=100, burst=1), clock)
    assert limiter.admit([60, 60, 10]) == (1, None)
    clock.now += PAUSE_S
    assert limiter.admit([60]) == (1, Suppressed(2, 70))


def test_what_followed_lines_that_were_passed_over_does_not_come_through() -> None:
    limiter = Limiter(LogLimit(lines=10, burst=10), Clock())
    assert limiter.admit([1] * 7, 2, Suppressed(1000, 5000)) == (2, None)
    assert limiter.take_suppressed(at_end=True) == Suppressed(1005, 5005)


def test_without_a_limit_everything_comes_through() -> None:
    limiter = Limiter(None)
    assert limiter.admit([1 << 40] * 1000) == (1000, None)
    assert not limiter.suppressing


@pytest.mark.parametrize("wrong", [{"lines": 0}, {"bytes": 0}, {"burst": 0.5}, {"burst": float("nan")}])
def test_a_limit_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        LogLimit(**wrong)  # type: ignore[arg-type]


@given(
    st.lists(st.binary(max_size=12).map(lambda line: line.translate(None, b"\r\n")), max_size=200),
    st.integers(1, 60),
    st.data(),
)
def test_every_line_is_shown_or_counted(lines: list[bytes], most: int, data: st.DataObject) -> None:
    """However the lines were written: the first ones are shown, the others told, and the tail is the stream's."""
    handler, level = Records(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=3)))
    logs = WorkerLogs("m", LogLimit(lines=most, burst=1.0))
    stdout, stderr = map(os.dup, logs.writers)
    try:
        for start, end in zip([0, *cuts], [*cuts, len(stream)]):
            os.write(stderr, stream[start:end])
            logs.drain(60)
    finally:
        os.close(stdout)
        os.close(stderr)
        logs.drain(60)
        logs.close()
        logger.setLevel(level)
        logger.removeHandler(handler)
    texts = [line.decode("utf-8", "backslashreplace") for line in lines]
    shown = handler.lines
    assert len(shown) >= min(most, len(lines))
    assert shown[:most] == [f"m: {text}" for text in texts[:most]]
    assert len(shown) + sum(count for count, _ in handler.suppressed) == len(lines)
    if shown == [f"m: {text}" for text in texts[: len(shown)]]:  # unless a pause came to its end meanwhile
        assert sum(size for _, size in handler.suppressed) == sum(
            len(line) + 1 for line in lines[len(shown) :]
        )
    assert logs.tail() == tuple(texts[-TAIL_LINES:])


def test_a_model_that_floods_its_streams_is_read_on_and_told_of_once(records: Records) -> None:
    with opexec.load(source("flooding"), name="loud") as model:
        assert model.infer({"lines": np.array(4000), "x": np.array(3.0)}, timeout=100)["output"] == 3
    shown = [line for line in records.lines if line.startswith("loud: ")]
    assert 1000 < len(shown) < 12_000
    told = [record for record in records.records if record.levelno == logging.WARNING]
    assert told
    assert sum(count for count, _ in records.suppressed) + len(shown) == 4000 * 3 + 1
    for record in told:
        assert record.worker == "loud"  # type: ignore[attr-defined]
        assert (
            "bytes suppressed, which were more than 1000 lines or 1048576 bytes a second"
            in record.getMessage()
        )
