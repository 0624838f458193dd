"""A caller that ends at each stage of a call, however: its worker goes with it, and neither a process nor a segment stays behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loaded import source
from tests.models import Gate

REPOSITORY = Path(__file__).parents[2]

ENDS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGSEGV": "ctypes.string_at(0)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "exit": "os._exit(3)",
    "exception": "raise SystemExit(3)",
    # A deadline of its own's: who started it has no patience with one that does not go on.
    "SIGSTOP": "os.kill(os.getpid(), signal.SIGSTOP)",
}

CALLER = """
import ctypes, os, signal, sys, threading, time
import numpy as np
import opexec, opexec.processes.worker
from opexec.connection import Connection
from opexec.ipc import ring
from opexec.ipc.doorbell import Doorbell
source, wrapper, stage = sys.argv[1:4]

def end():
    # From another thread, as a signal or a crash of somebody else's code would come. An exception ends the main thread alone.
    {end}

def told():
    sys.stdin.readline()
    # Before the caller has taken hold of it, only a worker that runs opexec's code leaves by itself.
    while stage == "before the handshake" and not list(opexec.processes.worker._workers):
        time.sleep(0.001)
    end()

in_main = {in_main}

def here(where=stage):
    "The main thread goes no further."
    print(where, flush=True)
    if in_main:
        told()
    threading.Event().wait()

def stop_in(owner, name, done=lambda *args: None):
    "Have a function stop, after what is `done` in its place."
    def function(*args):
        done(*args)
        here()
    setattr(owner, name, function)

x = np.full(200_000, -1.0)
if not in_main:
    threading.Thread(target=told, daemon=True).start()
env = wrapper if stage == "before the handshake" else None
# A worker that sleeps, and is not woken ahead of a call.
model = opexec.load(source, env=env, wait="block", wait_ready=not in_main, replicas=2 if stage == "idle" else 1)
if stage in ("before the handshake", "loading"):
    here()
if stage in ("in the model", "stopped in the model"):
    future = model.submit(dict(x=x))
    here()
model.wait_ready()
if stage == "writing a request":
    stop_in(ring, "_pack_head", ring._pack_head)  # the record is there, and the cursor was not moved
if stage == "before ringing":
    stop_in(Doorbell, "ring")
if stage == "reading an answer":
    stop_in(Connection, "_deliver")
if stage != "idle":
    y = model.infer(dict(x=-x))["y"]
    here("answered")
here()
"""

#: At these the model is at its gate; at the rest the caller says that it is there.
AT_THE_GATE = ("loading", "in the model", "stopped in the model")
STAGES = (
    "before the handshake",
    *AT_THE_GATE,
    "idle",
    "writing a request",
    "before ringing",
    "reading an answer",
    "answered",
)


def of(pid: int) -> list[int]:
    """The children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
            found += [int(text) for text in (task / "children").read_text().split()]
    return found


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_caller_that_ends(tmp_path: Path, gate: Gate, stage: str, how: str) -> None:
    wrapper = tmp_path / "python"
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    if stage == "before the handshake":
        # The probe of the interpreter is to pass; what starts the worker says that it is there, and goes no further.
        wrapper.write_text(
            f'#!/bin/sh\ncase "$*" in *--control*)\necho > {fifo}\nexec sleep 1000;;\nesac\nexec {sys.executable} "$@"\n'
        )
        wrapper.chmod(0o755)
    factory = "gated_while_loading" if stage == "loading" else "gated"
    caller = subprocess.Popen(
        [
            *(sys.executable, "-c", CALLER.format(end=ENDS[how], in_main=how == "exception")),
            *(source(factory), str(wrapper), stage),
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert caller.stdin is not None and caller.stdout is not None
    pidfds = []
    try:
        if stage == "before the handshake":
            fifo.read_text()
        elif stage in AT_THE_GATE:
            gate.wait()
        else:
            assert caller.stdout.readline() == f"{stage}\n", "the caller has ended, or went on"
        started = of(caller.pid)
        workers = [pid for pid in started if os.getpgid(pid) == pid]  # the others are their keepers
        assert len(workers) == (2 if stage == "idle" else 1)
        pidfds = [os.pidfd_open(pid) for pid in started]
        if stage == "stopped in the model":
            os.kill(workers[0], signal.SIGSTOP)
        caller.stdin.write("\n")
        caller.stdin.flush()
        if how == "SIGSTOP":
            os.waitid(os.P_PID, caller.pid, os.WSTOPPED)
            assert not select.select(pidfds, [], [], 0)[0], "a caller that only stands still has its worker"
            caller.kill()
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], 60)[0], "the worker outlives its caller"
        caller.wait(60)
        assert [name for name in os.listdir("/dev/shm") if name.startswith(f"opexec-{caller.pid}-")] == []
    finally:
        caller.kill()
        caller.wait()
        caller.stdin.close()
        caller.stdout.close()
        for pidfd in pidfds:
            os.close(pidfd)
