"""A worker's keeper: it shares the memory and nothing else, leaves the worker's end as it is, and never outlives worker and caller for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from opexec.workers import keeper

PATIENCE = 60

PROGRAM = """
import ctypes, os, signal, sys, types
keeper = types.ModuleType("keeper")
exec(open({path!r}).read(), keeper.__dict__)
keeper.__dict__.update({changes!r})
caught = []
signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
kept = keeper.start()
ballast = (ctypes.c_char * (64 << 20))()
ctypes.memset(ballast, 7, len(ballast))
word = ctypes.c_uint64(0)
word.value = 4711
print(kept, ctypes.addressof(word), flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""


class Worker:
    """A process with a keeper, which does what it is told."""

    def __init__(self, **changes):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(path=keeper.__file__, changes=changes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self.kept, self.word = map(int, self.process.stdout.readline().split())

    def tell(self, expression):
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            os.waitpid(self.kept, 0)
        except ChildProcessError:
            pass


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


def said(pid, field):
    with open("/proc/{}/status".format(pid)) as status:
        return next(line.split()[1] for line in status if line.startswith(field + ":"))


def awaited(condition):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.fixture
def sleeping(worker):
    """The worker, once its keeper has done all it does."""
    awaited(lambda: said(worker.kept, "State") == "S" and not os.listdir("/proc/{}/fd".format(worker.kept)))
    return worker


def test_it_shares_the_memory_and_nothing_else(sleeping):
    with open("/proc/{}/mem".format(sleeping.kept), "rb", 0) as memory:
        memory.seek(sleeping.word)
        assert int.from_bytes(memory.read(8), sys.byteorder) == 4711
    kept = sleeping.kept
    assert said(kept, "Name") == "opexec-keeper"
    assert said(kept, "PPid") == str(os.getpid())
    assert os.listdir("/proc/{}/fd".format(kept)) == []
    assert os.getpgid(kept) == sleeping.pid
    assert os.sched_getscheduler(kept) == os.SCHED_BATCH
    blocked = int(said(kept, "SigBlk"), 16)
    assert all(
        blocked >> number - 1 & 1 for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP)
    )


def test_the_worker_waits_for_no_child_and_has_one_thread(worker):
    assert worker.tell("len(os.listdir('/proc/self/task'))") == "1"
    assert worker.tell("os.system('true')") == "0"
    assert worker.tell("(os.fork() or os._exit(3)) and os.wait()[1] >> 8") == "3"


def test_signals_to_the_group_are_the_workers_alone(sleeping):
    os.killpg(sleeping.pid, signal.SIGUSR1)
    awaited(lambda: sleeping.tell("caught") != "[]")
    assert sleeping.tell("len(caught)") == "1"
    assert said(sleeping.kept, "State") == "S"


@pytest.mark.parametrize("code", [0, 7])
def test_how_the_worker_ends_is_told(worker, code):
    worker.process.stdin.write("os._exit({})\n".format(code))
    worker.process.stdin.flush()
    assert worker.process.wait(PATIENCE) == code


def test_the_worker_has_ended_while_its_memory_is_still_there(sleeping):
    os.kill(sleeping.pid, signal.SIGKILL)
    assert sleeping.process.wait(PATIENCE) == -signal.SIGKILL
    assert int(said(sleeping.kept, "VmRSS")) > 64 << 10
    with open("/proc/{}/mem".format(sleeping.kept), "rb", 0) as memory:
        memory.seek(sleeping.word)
        assert int.from_bytes(memory.read(8), sys.byteorder) == 4711
    os.killpg(sleeping.pid, signal.SIGKILL)
    assert os.waitpid(sleeping.kept, 0)[1] == signal.SIGKILL


def test_both_end_with_the_caller():
    """Killed, so that nothing of it is left to see to them."""
    reader, writer = os.pipe()
    caller = os.fork()
    if not caller:
        worker = Worker()
        awaited(lambda: not os.listdir("/proc/{}/fd".format(worker.kept)))
        os.write(writer, "{} {}".format(worker.pid, worker.kept).encode())
        time.sleep(PATIENCE)
        os._exit(1)
    os.close(writer)
    pid, kept = map(int, os.read(reader, 100).split())
    os.close(reader)
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    try:
        awaited(lambda: gone(kept))
    finally:
        os.kill(pid, signal.SIGKILL)


def gone(pid):
    """Whether a process has ended; it may be that nobody has reaped it."""
    try:
        return said(pid, "State") in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_it_ends_quietly_where_it_may_not_wait():
    """As where a filter of system calls refuses the one it waits in."""
    worker = Worker(_PPOLL={os.uname()[4]: 1 << 20})
    try:
        assert os.waitpid(worker.kept, 0)[1] == 0
        assert worker.tell("word.value") == "4711"
    finally:
        worker.close()


@pytest.mark.parametrize("lacking", ["_PPOLL", "_OLDEST_GLIBC", "_CLOSE_RANGE", "ctypes"])
def test_where_it_cannot_be_there_is_none(lacking, monkeypatch):
    if lacking == "ctypes":
        monkeypatch.setitem(sys.modules, "ctypes", None)
    else:
        nothing = {"_PPOLL": {}, "_OLDEST_GLIBC": (99, 0), "_CLOSE_RANGE": 1 << 20}[lacking]
        monkeypatch.setattr(keeper, lacking, nothing)
    assert keeper.start() is None
