"""The threads that serve every model of a process outlive a moment without memory, and lose nothing by it."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import threading
import time
from typing import Any

import pytest

from opexec.processes import logs
from opexec.processes.logs import WorkerLogs
from opexec.supervision import watcher

PATIENCE = 60.0


class Poor:
    """As what it stands for, but that there is no memory the first times it is asked to poll."""

    def __init__(self, of: Any, failures: int) -> None:
        self._of = of
        self._failures = failures
        self.failed = threading.Event()

    def poll(self, *arguments: Any) -> Any:
        if self._failures:
            self._failures -= 1
            self.failed.set()
            raise MemoryError
        return self._of.poll(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


@pytest.mark.parametrize("failures", [1, 3])
def test_the_watcher(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    due, ended = threading.Event(), threading.Event()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        pidfd = os.pidfd_open(process.pid)
        watcher.when_dead(pidfd, ended.set)
        os.close(pidfd)
        poor = Poor(select, failures)
        monkeypatch.setattr(watcher, "select", poor)
        # It may be asleep as yet, in a poll from before, after which it does what is due: of this it hears in the next one.
        watcher.at(time.monotonic(), lambda: watcher.at(time.monotonic(), due.set))
        assert due.wait(PATIENCE) and poor.failed.is_set()
        assert not ended.is_set()
    assert ended.wait(PATIENCE)


def test_the_watcher_forgets_nothing_of_what_is_due_when_one_action_has_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happen, failed, second = watcher.Watch._happen, threading.Event(), threading.Event()

    def without_memory(watch: watcher.Watch) -> None:
        if not failed.is_set():
            failed.set()
            raise MemoryError
        happen(watch)

    monkeypatch.setattr(watcher.Watch, "_happen", without_memory)
    first = threading.Event()
    now = time.monotonic()
    with watcher._watcher.lock:
        watcher.at(now, first.set)
        watcher.at(now, second.set)
    assert first.wait(PATIENCE) and second.wait(PATIENCE) and failed.is_set()


def test_the_thread_that_reads_logs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "opexec.worker")
    came, records = threading.Event(), []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record, "worker", None) == "poor":
                records.append(record.getMessage())
                came.set()

    handler = Handler()
    logger = logging.getLogger("opexec.worker")
    logger.addHandler(handler)
    worker = WorkerLogs("poor")
    out = os.dup(worker.writers[0])
    try:
        worker.started(4711)
        pump = logs._Pump.current()
        poor = Poor(pump.poll, 2)
        monkeypatch.setattr(pump, "poll", poor)
        for line in (b"first\n", b"second\n"):
            came.clear()
            os.write(out, line)
            assert came.wait(PATIENCE)
        assert poor.failed.is_set() and records == ["poor: first", "poor: second"]
    finally:
        os.close(out)
        worker.close()
        logger.removeHandler(handler)
