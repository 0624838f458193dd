"""`python -m benchmarks supervision`: how soon a death is seen and healed, and what supervising costs while nothing happens.

One run, one table, each figure beside its goal:

- from a worker's SIGKILL until a caller that waits for it has its error, and how much of that came after the kernel had ended the process:
  that part alone is opexec's; beside it, how long the kernel takes to end an interpreter that has imported numpy and nothing else;
- from the kill of an idle worker until a call is answered again, beside the time in which the same model is loaded;
- from a caller's SIGKILL until the kernel has ended its worker;
- the processor time of this process while it has idle workers, as they are and with limits that are looked after;
- a call's p50 with each thing that can be asked of the supervisor, beside that of a model with nothing to be supervised: 64 B, interleaved.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import opexec
from benchmarks.ratios import Spread
from opexec import Model, RestartPolicy, WorkerDied

_AT_ONCE = RestartPolicy(max_restarts=1_000_000, backoff=0.0)
_REPOSITORY = Path(__file__).resolve().parents[1]

#: A model that answers at once, or, where x is negative, after as many seconds.
_MODEL = """
import time

def waiting():
    def call(x):
        if x[0] < 0:
            time.sleep(-float(x[0]))
        return x
    return call
"""

#: A process that loads the model, tells its worker's pid, and then calls it all the time.
_CALLER = """
import sys, numpy as np, opexec

model = opexec.load(sys.argv[1])
print(model.workers[0].pid, flush=True)
while True:
    model.infer({"x": np.ones(8)})
"""

#: The least that a worker is.
_BARE = "import numpy, time; print(flush=True); time.sleep(600)"

_NOW, _FOR_LONG = {"x": np.ones(8)}, {"x": np.full(8, -60.0)}

#: What can be asked of the supervisor, by what the table calls it. The first has nothing to be supervised, the second is the default.
_ASKED: dict[str, dict[str, Any]] = {
    "restart=False, grace=None": {"restart": False, "grace": None},
    "as it comes": {},
    "timeout=60": {"timeout": 60.0},
    "max_calls, max_memory": {"max_calls": 10**12, "max_memory": 1 << 40},
    "max_pending=8": {"max_pending": 8},
    "replicas=2": {"replicas": 2},
}


class Figure(NamedTuple):
    """A line of the table; `met` is None where there is no goal."""

    what: str
    found: str
    goal: str = ""
    met: bool | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 1 with ``--check`` if a goal was missed."""
    given = _parser().parse_args(argv)
    logging.getLogger("opexec").setLevel(logging.ERROR)  # else a line for every kill
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.py"
        file.write_text(_MODEL)
        figures = list(_figures(f"{file}:waiting", given))
    table = Table("what", "found", "goal", "", title="Supervision", title_justify="left")
    for figure in figures:
        verdict = {None: "", True: "[green]met[/]", False: "[red]NOT MET[/]"}[figure.met]
        table.add_row(figure.what, figure.found, figure.goal, verdict)
    Console().print(table)
    return 1 if given.check and any(figure.met is False for figure in figures) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks supervision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--callers", type=int, default=20, help="how many callers are killed")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--idle-seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=9, help="of the calls")
    parser.add_argument("--calls", type=int, default=2000, help="in each round, of each")
    parser.add_argument("--check", action="store_true", help="fail if a goal is missed")
    return parser


def _figures(source: str, given: argparse.Namespace) -> Iterator[Figure]:
    with opexec.load(source, restart=_AT_ONCE) as model:
        seen, after, bare = deaths_seen(model, given.kills)
        again = service_again(model, given.starts)
    p99 = _p99(seen)
    yield Figure(
        f"death seen by a waiting caller, {len(seen)} kills", _times(seen), "p99 <= 5 ms", p99 <= 0.005
    )
    yield Figure("  of that, after the kernel had ended the worker", _times(after))
    yield Figure("  the kernel ends a bare interpreter with numpy, in turn with these", _times(bare))

    starts = start_times(source, given.starts)
    late = statistics.median(again) - statistics.median(starts)
    yield Figure(f"load of the model, {len(starts)} times", _times(starts))
    yield Figure(
        f"back in service after a kill, {len(again)} kills",
        f"{_times(again)}; {1e3 * late:+.0f} ms",
        "load + 100 ms",
        late <= 0.1,
    )

    gone = workers_gone(source, given.callers)
    p99 = _p99(gone)
    yield Figure(f"worker gone, {len(gone)} callers killed", _times(gone), "p99 <= 200 ms", p99 <= 0.2)

    for what, limits in (("", {}), (" with max_calls, max_memory", _ASKED["max_calls, max_memory"])):
        percent = idle_percent(source, given.workers, given.idle_seconds, limits)
        yield Figure(
            f"{given.workers} idle workers{what}", f"{percent:.4f} % of a core", "<= 0.1 %", percent <= 0.1
        )

    for what, spread in call_ratios(source, given.rounds, given.calls).items():
        yield Figure(
            f"64 B call, {what}", f"{spread.median:.3f} x of none ({spread.low:.3f} to {spread.high:.3f})"
        )


def deaths_seen(model: Model, count: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds from each kill of a busy worker until its caller has WorkerDied; of these, those after the kernel had ended the process; and
    from each kill of a bare interpreter until the kernel had ended that."""
    found, after, bare = [], [], []
    for _ in range(count):
        model.infer(_NOW)
        ended: list[float] = []

        def call(ended: list[float] = ended) -> None:
            try:
                model.infer(_FOR_LONG)
            except WorkerDied:
                ended.append(time.perf_counter())

        thread = threading.Thread(target=call)
        calls = model.stats().calls
        thread.start()
        while model.stats().calls == calls:
            time.sleep(0.001)
        time.sleep(0.02)  # it sleeps in the model, and the caller in poll
        began, gone = _kill(model.workers[0].pid or 0)
        thread.join()
        found.append(ended[0] - began)
        after.append(max(ended[0] - gone, 0.0))
        with subprocess.Popen([sys.executable, "-c", _BARE], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02)
            began, gone = _kill(process.pid)
        bare.append(gone - began)
    return found, after, bare


def _kill(pid: int) -> tuple[float, float]:
    """SIGKILL; returns when it was sent, and when the kernel had ended the process."""
    pidfd = os.pidfd_open(pid)
    try:
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        select.select([pidfd], [], [])
        return began, time.perf_counter()
    finally:
        os.close(pidfd)


def service_again(model: Model, count: int) -> list[float]:
    """Seconds from each kill of an idle worker until a call is answered by the next one."""
    found = []
    for _ in range(count):
        model.infer(_NOW)
        began = time.perf_counter()
        os.kill(model.workers[0].pid or 0, signal.SIGKILL)
        while True:
            try:
                model.infer(_NOW)
                break
            except WorkerDied:  # sent before anybody had seen the death
                continue
        found.append(time.perf_counter() - began)
    return found


def start_times(source: str, count: int) -> list[float]:
    """Seconds from `load` until a call is answered."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        with opexec.load(source) as model:
            model.infer(_NOW)
            found.append(time.perf_counter() - began)
    return found


def workers_gone(source: str, count: int) -> list[float]:
    """Seconds from the kill of each caller, in the midst of calls, until its worker has ended."""
    found = []
    for _ in range(count):
        caller = subprocess.Popen(
            [sys.executable, "-c", _CALLER, source], stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY
        )
        with caller:
            assert caller.stdout is not None
            pidfd = os.pidfd_open(int(caller.stdout.readline()))
            began = time.perf_counter()
            caller.kill()
            select.select([pidfd], [], [])
            found.append(time.perf_counter() - began)
            os.close(pidfd)
    return found


def idle_percent(source: str, workers: int, seconds: float, limits: dict[str, Any]) -> float:
    """Percent of a core that this process uses while it has that many idle workers."""
    with opexec.load(source, replicas=workers, **limits) as model:
        model.infer(_NOW)
        time.sleep(1)
        began, used = time.monotonic(), time.process_time()
        time.sleep(seconds)
        return 100 * (time.process_time() - used) / (time.monotonic() - began)


def call_ratios(source: str, rounds: int, calls: int) -> dict[str, Spread]:
    """Of each thing that can be asked of the supervisor, a call's p50 over that of a model with nothing to be supervised."""
    ratios: dict[str, list[float]] = {what: [] for what in _ASKED}
    with ExitStack() as open_models:
        models = {
            what: open_models.enter_context(opexec.load(source, **asked)) for what, asked in _ASKED.items()
        }
        for model in models.values():
            _p50(model, calls)
        for number in range(rounds):
            order = list(models)[number % len(models) :] + list(models)[: number % len(models)]
            p50 = {what: _p50(models[what], calls) for what in order}
            for what, found in p50.items():
                ratios[what].append(found / p50[next(iter(_ASKED))])
    return {what: Spread.of(found) for what, found in list(ratios.items())[1:]}


def _p50(model: Model, calls: int) -> float:
    taken = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        model.infer(_NOW)
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken)


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


def _times(times: Sequence[float]) -> str:
    return f"median {statistics.median(times) * 1e3:.2f} ms, p99 {_p99(times) * 1e3:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
