"""A program that ends with calls in flight ends well: exit status 0, nothing on standard error, no worker left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loaded import source
from tests.models import Gate

REPOSITORY = str(Path(__file__).parents[2])

HEAD = """
import asyncio, gc, logging, os, sys, threading, time
import numpy as np, opexec
from tests.models import Gate

def load(factory, **more):
    model = opexec.load(factory, **more)
    print(model.workers[0].pid, flush=True)
    return model

gated, double = sys.argv[1:3]
stays, x = {"x": np.array([-1.0])}, {"x": np.ones(3)}
arrived = Gate(os.environ["OPEXEC_TEST_GATE"])  # where the model waits for ever
"""

#: How programs end. The model of the first ones is at its gate, and nobody lets it on.
ENDS = {
    "a Future is open": """
model = load(gated)
future = model.submit(stays)
future.add_done_callback(print)
arrived.wait()
""",
    "daemon threads wait for one reader": """
model = load(gated)
for _ in range(3):
    threading.Thread(target=model.infer, args=(stays,), daemon=True).start()
arrived.wait()
model.submit(stays)
sys.exit()
""",
    "asyncio.run cancels a task": """
model = load(gated)
async def main():
    task = asyncio.create_task(model.infer_async(stays))
    await asyncio.to_thread(arrived.wait)
asyncio.run(main())
""",
    "daemon threads go on calling": """
model = load(double)
began = threading.Barrier(4)
def call(way):
    way()
    began.wait()
    while True:
        way()
for way in (lambda: model.infer(x), lambda: model(x["x"]), lambda: model.submit(x).result()):
    threading.Thread(target=call, args=(way,), daemon=True).start()
began.wait()
""",
    "daemon threads go on submitting": """
model = load(double)
model.infer(x)
began = threading.Barrier(4)
def call():
    began.wait()
    while True:
        model.submit(x).result()
for _ in range(3):
    threading.Thread(target=call, daemon=True).start()
began.wait()
""",
    "nothing was closed": """
class Holder: pass
model, holder = load(double), Holder()
holder.itself, holder.model, holder.output = holder, model, model.infer(x)["y"]
supervisor = opexec.Supervisor()
other = supervisor.load(double, name="other")
server = supervisor.serve_metrics()
kept = other.empty("x", (3,), np.float64)
kept[...] = 1
outputs = other.infer({"x": kept})
""",
    "it is loading": """
model = opexec.load(double, wait_ready=False)
""",
    "daemon threads may use what is open": """
import atexit
used = []
atexit.register(lambda: [os.fstat(fd) for fd in used])  # before anything is loaded: it runs after all of opexec's own
model = load(double)
with model.share("exit"):
    attached = opexec.attach("exit")
for one in (model, attached):
    process = one.replicas.first.process
    used += [process.pidfd, process.control.fileno()]
    used += [segment.fd for segment in one._memory._segments.values()]
""",
    "large calls of an event loop, and the end of several workers, in atexit": """
import atexit
spec = {"dtype": "float64", "shape": ["n"]}
specs = {"inputs": [{"name": "x", **spec}], "outputs": [{"name": "y", **spec}]}
two, batched = load(double, replicas=2), load(double, batch=opexec.BatchPolicy(max_size=1 << 20), **specs)
supervisor = opexec.Supervisor()
supervisor.load(double)
large = {"x": np.ones(1 << 18)}
def late():
    for model in (two, batched):
        assert asyncio.run(model.infer_async(large))["y"][0] == 2
        model.close()
    supervisor.close()
atexit.register(late)
""",
    "calls in atexit and from a thread that ends later": """
import atexit
model = load(double)
def late():
    threading.main_thread().join()
    assert model.infer(x)["y"].sum() == model.submit(x).result(60)["y"].sum() == 6
threading.Thread(target=late).start()
atexit.register(lambda: model.infer(x))
""",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))
def test_a_program_ends_in_silence(
    end: str, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPEXEC_RUNTIME", str(tmp_path / "runtime"))
    program = subprocess.run(
        [sys.executable, "-c", HEAD + end, source("gated"), source("double")],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=100,
    )
    assert program.stderr == ""
    assert program.returncode == 0
    for pid in map(int, program.stdout.split()):
        assert ended(pid), "its worker lives on"


def ended(pid: int) -> bool:
    """Whether a worker, whose parent is gone, goes too; at once but for what the kernel takes."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    import select

    try:
        return bool(select.select([pidfd], [], [], 60)[0])
    finally:
        os.close(pidfd)
