"""`python -m benchmarks supervision`: how soon a death is seen and healed, and what supervising costs while nothing happens.

Prints, from one run: the time from a worker's SIGKILL until a caller that waits for it has its error, and how much of that came after the
kernel had ended the process, which alone is opexec's; the time from the kill of an idle worker
until a call is answered again, beside the time in which the same model is loaded; and the processor time of this process while it has
idle workers.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import opexec
from opexec import Model, RestartPolicy, WorkerDied

_AT_ONCE = RestartPolicy(max_restarts=1_000_000, backoff=0.0)


#: A model that answers at once, or, where x is negative, after as many seconds.
_MODEL = """
import time

def waiting():
    def call(x):
        time.sleep(max(0.0, -float(x)))
        return x
    return call
"""


def deaths_seen(model: Model, count: int) -> tuple[list[float], list[float]]:
    """Seconds from each kill of a busy worker until its caller has WorkerDied; and of these, those after the kernel had ended the process."""
    found, after = [], []
    for _ in range(count):
        model.infer({"x": np.array(1.0)})
        ended: list[float] = []

        def call(ended: list[float] = ended) -> None:
            try:
                model.infer({"x": np.array(-60.0)})
            except WorkerDied:
                ended.append(time.perf_counter())

        thread = threading.Thread(target=call)
        calls = model.stats().calls
        thread.start()
        while model.stats().calls == calls:
            time.sleep(0.001)
        time.sleep(0.02)  # it sleeps in the model, and the caller in poll
        pid = model.workers[0].pid or 0
        pidfd = os.pidfd_open(pid)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        select.select([pidfd], [], [])
        gone = time.perf_counter()
        os.close(pidfd)
        thread.join()
        found.append(ended[0] - began)
        after.append(max(ended[0] - gone, 0.0))
    return found, after


def service_again(model: Model, count: int) -> list[float]:
    """Seconds from each kill of an idle worker until a call is answered by the next one."""
    found = []
    for _ in range(count):
        model.infer({"x": np.array(1.0)})
        began = time.perf_counter()
        os.kill(model.workers[0].pid or 0, signal.SIGKILL)
        while True:
            try:
                model.infer({"x": np.array(1.0)})
                break
            except WorkerDied:  # sent before anybody had seen the death
                continue
        found.append(time.perf_counter() - began)
    return found


def start_times(source: str, count: int) -> list[float]:
    found = []
    for _ in range(count):
        began = time.perf_counter()
        with opexec.load(source) as model:
            model.infer({"x": np.array(1.0)})
            found.append(time.perf_counter() - began)
    return found


def idle_percent(source: str, workers: int, seconds: float) -> float:
    """Percent of a core that this process uses while it has that many idle workers."""
    with opexec.load(source, replicas=workers) as model:
        model.infer({"x": np.array(1.0)})
        time.sleep(1)
        began, used = time.monotonic(), time.process_time()
        time.sleep(seconds)
        return 100 * (time.process_time() - used) / (time.monotonic() - began)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks supervision", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--idle-seconds", type=float, default=10.0)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.py"
        file.write_text(_MODEL)
        source = f"{file}:waiting"
        with opexec.load(source, restart=_AT_ONCE) as model:
            seen, after = map(sorted, deaths_seen(model, given.kills))
            again = service_again(model, given.starts)
        starts = start_times(source, given.starts)
        percent = idle_percent(source, given.workers, given.idle_seconds)
    back, start = statistics.median(again), statistics.median(starts)
    for what, times in (
        ("death seen by a waiting caller", seen),
        ("of that, after the kernel had ended it", after),
    ):
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        print(
            f"{what}, {len(times)} kills: median {statistics.median(times) * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms"
        )
    print(
        f"back in service after a kill: median {back * 1e3:.0f} ms; load of the same model: {start * 1e3:.0f} ms; "
        f"ratio {back / start:.2f}, difference {1e3 * (back - start):+.0f} ms"
    )
    print(f"{given.workers} idle workers: {percent:.4f} % of a core in the supervising process")
    return 0


if __name__ == "__main__":
    sys.exit(main())
