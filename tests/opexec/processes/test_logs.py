"""What workers print: every line to the log, the last ones kept, and no harm from floods, handlers or forks."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opexec.processes.logs import LINE_BYTES, TAIL_LINES, WorkerLogs

logger = logging.getLogger("opexec.worker")


class Worker:
    """The writing ends of a worker's streams."""

    def __init__(self, logs: WorkerLogs, pid: int) -> None:
        self.stdout, self.stderr = map(os.dup, logs.writers)
        logs.started(pid)

    def close(self) -> None:
        os.close(self.stdout)
        os.close(self.stderr)


@pytest.fixture()
def make() -> Iterator[Callable[..., tuple[WorkerLogs, Worker]]]:
    made: list[tuple[WorkerLogs, Worker]] = []

    def start(name: str = "m", pid: int = 4711) -> tuple[WorkerLogs, Worker]:
        logs = WorkerLogs(name)
        made.append((logs, Worker(logs, pid)))
        return made[-1]

    yield start
    for logs, worker in made:
        logs.close()
        worker.close()


class Collector(logging.Handler):
    """Keeps records, and lets a test wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.came = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self.came:
            self.records.append(record)
            self.came.notify_all()

    def wait_for(self, count: int) -> list[logging.LogRecord]:
        with self.came:
            assert self.came.wait_for(lambda: len(self.records) >= count, 60), self.records
            return self.records


@pytest.fixture()
def collector() -> Iterator[Collector]:
    handler = Collector()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


def lines_of(data: bytes, cuts: list[int] | None = None) -> tuple[str, ...]:
    """The tail after `data` was written in pieces that were read one by one."""
    logs = WorkerLogs("m")
    worker = Worker(logs, 1)
    cuts = sorted(cuts or [])
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        os.write(worker.stderr, data[start:end])
        logs.drain(60)
    worker.close()
    logs.drain(60)
    logs.close()
    return logs.tail()


def test_every_line_goes_to_the_log_with_its_origin(make, collector: Collector) -> None:
    _, worker = make("detector", 4711)
    os.write(worker.stdout, b"one\ntwo\nhalf")
    os.write(worker.stderr, "größer\n".encode())
    records = collector.wait_for(3)
    seen = {(r.levelno, r.worker, r.worker_pid, r.stream, r.getMessage()) for r in records}  # type: ignore[attr-defined]
    assert seen == {
        (logging.INFO, "detector", 4711, "stdout", "detector: one"),
        (logging.INFO, "detector", 4711, "stdout", "detector: two"),
        (logging.INFO, "detector", 4711, "stderr", "detector: größer"),
    }
    os.write(worker.stdout, b" done\n")
    assert collector.wait_for(4)[3].getMessage() == "detector: half done"


def test_the_tail_keeps_the_last_lines_and_an_unfinished_one() -> None:
    many = b"".join(b"line %d\n" % number for number in range(TAIL_LINES + 20))
    assert lines_of(many) == tuple(f"line {number}" for number in range(20, TAIL_LINES + 20))
    assert lines_of(many + b"unfinished")[-2:] == (f"line {TAIL_LINES + 19}", "unfinished")
    assert len(lines_of(many + b"unfinished")) == TAIL_LINES


def test_an_unfinished_line_is_in_the_tail_before_its_end_comes(make) -> None:
    logs, worker = make()
    os.write(worker.stderr, b"first\nSegmentation fau")
    logs.drain(60)
    assert logs.tail() == ("first", "Segmentation fau")
    assert logs.tail("stdout") == ()


@given(st.lists(st.text("ab é", max_size=6), max_size=6), st.data())
def test_lines_do_not_depend_on_how_they_were_written(lines: list[str], data: st.DataObject) -> None:
    stream = "".join(f"{line}\n" for line in lines).encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
    assert lines_of(stream, cuts) == tuple(lines)


@pytest.mark.parametrize("cuts", [[], [7], [8], [14], [15], [16]])
def test_a_carriage_return_starts_the_line_anew(cuts: list[int]) -> None:
    assert lines_of(b"\r 10 % \r 20 % \r100 %\nwindows\r\nx", cuts) == ("100 %", "windows", "x")


def test_bytes_that_are_no_text_are_escaped() -> None:
    assert lines_of(b"\xff\xfeabc\n") == ("\\xff\\xfeabc",)


@pytest.mark.parametrize("pieces", [1, 7])
def test_a_line_has_a_bounded_length_and_says_what_is_missing(pieces: int) -> None:
    length = 3 * LINE_BYTES
    cuts = [length * number // pieces for number in range(1, pieces)]
    expected = "x" * LINE_BYTES + f" [{length - LINE_BYTES} bytes left out]"
    assert lines_of(b"x" * length + b"\nnext\n", cuts) == (expected, "next")


def test_a_long_stack_that_comes_with_what_was_printed_before_it_costs_neither_of_them(make) -> None:
    logs, worker = make()
    frames = [f'  File "model.py", line {n} in deep' for n in range(3 * TAIL_LINES)]
    with logs.stack() as lines:
        os.write(worker.stderr, "\n".join(["last words", "Current thread 0x1:", *frames, ""]).encode())
        logs.drain(60)
        assert lines[1:] == frames
    assert logs.tail() == ("last words",)


@pytest.mark.parametrize("line", [b"", b"some words\n"])
def test_a_flood_neither_blocks_its_writer_for_ever_nor_grows(make, line: bytes) -> None:
    logs, worker = make()
    chunk = (line or b"no end of line ") * (65536 // max(len(line), 15))
    for _ in range(300):
        os.write(worker.stdout, chunk)
    os.write(worker.stdout, b"\nlast\n")
    logs.drain(60)
    tail = logs.tail("stdout")
    assert tail[-1] == "last"
    assert len(tail) <= TAIL_LINES
    assert sum(map(len, tail)) < TAIL_LINES * (LINE_BYTES + 100)


def test_drain_reads_everything_though_the_pipe_stays_open_and_a_handler_blocks(
    make, collector: Collector
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def stuck(record: logging.LogRecord) -> bool:
        if threading.current_thread().name == "opexec-logs":
            entered.set()
            go_on.wait(60)
        return True

    collector.addFilter(stuck)
    logs, worker = make()
    os.write(worker.stderr, b"first\n")
    assert entered.wait(60)
    os.write(worker.stderr, b"last words\n")
    logs.drain(60)
    assert logs.tail() == ("first", "last words")
    go_on.set()


def test_a_filter_that_raises_stops_nobody(
    make, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(record: logging.LogRecord) -> bool:
        if "bad" in record.getMessage():
            raise RuntimeError("a broken filter")
        return True

    logger.addFilter(broken)
    try:
        _, worker = make()
        os.write(worker.stdout, b"bad\n")
        _, other = make("other")
        os.write(other.stdout, b"good\n")
        assert collector.wait_for(1)[0].getMessage() == "other: good"
    finally:
        logger.removeFilter(broken)
    assert "a broken filter" in capsys.readouterr().err


def test_closing_is_final_and_keeps_the_tail(make) -> None:
    logs, worker = make()
    os.write(worker.stderr, b"kept\n")
    logs.drain(60)
    logs.close()
    logs.close()
    with pytest.raises(BrokenPipeError):
        os.write(worker.stderr, b"nobody listens\n")
    logs.drain(60)
    assert logs.tail() == ("kept",)


def test_no_descriptor_stays_open(make, descriptors: Callable[[], set[str]]) -> None:
    make()  # the thread and its epoll stay
    before = descriptors()
    for _ in range(3):
        logs = WorkerLogs("m")
        worker = Worker(logs, 1)
        worker.close()
        logs.close()
    WorkerLogs("never started").close()
    assert descriptors() == before


def test_a_forked_copy_reads_nothing_and_has_logs_of_its_own(make, collector: Collector) -> None:
    logs, worker = make()
    os.write(worker.stdout, b"before\n")
    collector.wait_for(1)
    pid = os.fork()
    if pid == 0:
        try:
            os.write(worker.stdout, b"from the copy\n")
            logs.drain(60)
            logs.close()
            assert logs.tail("stdout") == ("before",)
            own = WorkerLogs("own")
            own_worker = Worker(own, 2)
            os.write(own_worker.stdout, b"own line\n")
            assert collector.wait_for(2)[1].getMessage() == "own: own line"
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    os.write(worker.stdout, b"after\n")
    assert [record.getMessage() for record in collector.wait_for(3)] == [
        "m: before",
        "m: from the copy",
        "m: after",
    ]


def test_a_copy_that_was_forked_in_the_middle_of_a_read_can_close(make) -> None:
    logs, _ = make()
    held, done = threading.Event(), threading.Event()

    def read_on() -> None:
        with logs._streams["stdout"]._lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=read_on)
    thread.start()
    held.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        logs.close()
        os._exit(0)
    done.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0
