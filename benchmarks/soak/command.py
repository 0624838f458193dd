"""`python -m benchmarks soak`: many calls of every kind, while workers are killed every second.

Four workers of one model, eight threads that call it in every way there is, with inputs of random sizes, and processes that are attached to it.
Every second a worker gets a signal (SIGKILL, SIGSEGV, SIGABRT, SIGTERM, SIGSTOP); beside that the model ends its own worker now and then, all are replaced
by `restart` and `swap`, and after `max_calls` by themselves, and attached processes are killed.

The promises: each call ends with the right answer or with one of the errors that are documented for what befell it, not later
than its deadline; answers that are held stay as they are; between rounds, when nothing is called, the process has as many descriptors,
threads and children as after the first round, no segment that its model does not count, and no memory that grows; afterwards
nothing is left. Prints what was counted; the exit status is 1 if any promise was broken.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import opexec
from benchmarks.soak.callers import TIMEOUT_S, Caller
from benchmarks.soak.chaos import Killer, Operator
from benchmarks.soak.holdings import Holdings, steady_malloc
from benchmarks.soak.tally import Tally
from opexec.ipc.segment import PAGE

_SOURCE = f"{Path(__file__).with_name('soaked_model.py')}:soaked"
_MAX_PENDING = 24
_PATIENCE_S = 60.0

#: Private memory that may come on top after the first third of the rounds: fixed, and for each worker that was started.
_GROWTH = 4 << 20
_GROWTH_PER_WORKER = 8 << 10


class Client:
    """An attached process."""

    def __init__(self, name: str, seed: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak.client", name, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def kill(self) -> None:
        self.process.kill()
        self._reap()

    def end(self, tally: Tally) -> None:
        """Have it leave, and count what it counted."""
        try:
            said, _ = self.process.communicate(timeout=_PATIENCE_S + 60)
        except subprocess.TimeoutExpired:
            tally.complain("an attached process hangs")
            self.kill()
            return
        lines = said.splitlines()
        if self.process.returncode or len(lines) != 2:
            tally.complain(
                f"an attached process ended with status {self.process.returncode}, and said {said!r}"
            )
        else:
            tally.merge(Tally.from_json(lines[1]))

    def _reap(self) -> None:
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Soak:
    """One run. `tally` has what was counted so far."""

    def __init__(self, model: opexec.Model, shared_as: str, given: argparse.Namespace) -> None:
        self.tally = Tally()
        self.events: Counter[str] = Counter()
        self.samples: list[tuple[int, Holdings]] = []
        self._model = model
        self._shared_as = shared_as
        self._given = given
        self._random = random.Random(given.seed)

    def run(self) -> None:
        end = time.monotonic() + self._given.seconds
        while True:
            self._round(min(self._given.round_seconds, max(end - time.monotonic(), 1.0)))
            self._look()
            if time.monotonic() >= end or self.tally.broken > 100:
                return

    def _round(self, seconds: float) -> None:
        given, stop = self._given, threading.Event()
        killer = Killer(self._model, self._seed(), stop, given.kill_every)
        operator = Operator(self._model, _SOURCE, self.tally, self._seed(), stop, given.replace_every)
        callers = [Caller(self._model, self.tally, self._seed(), stop) for _ in range(given.callers)]
        actions = [*(caller.run for caller in callers), killer.run, operator.run]
        threads = [threading.Thread(target=action, daemon=True) for action in actions]
        clients = [Client(self._shared_as, self._seed()) for _ in range(given.clients)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        for number, client in enumerate(clients):
            if number % 2:
                stop.wait(max(0.0, end - time.monotonic()) * self._random.random())
                client.kill()
                self.events["attached processes killed"] += 1
        stop.wait(max(0.0, end - time.monotonic()))
        stop.set()
        for client in clients[::2]:
            client.end(self.tally)
        for thread in threads:
            thread.join(_PATIENCE_S)
            if thread.is_alive():
                self.tally.complain("a thread hangs")
                faulthandler.dump_traceback(all_threads=True)
                report(self, [])
                os._exit(1)
        killer.let_go()
        self.events += killer.done + operator.done

    def _seed(self) -> int:
        return self._random.randrange(1 << 32)

    def _look(self) -> None:
        """Nothing is called: what is there?"""
        model, given = self._model, self._given
        give_up = time.monotonic() + _PATIENCE_S
        while [worker.state for worker in model.workers] != ["ready"] * given.replicas:
            if any(
                worker.state == "failed" for worker in model.workers
            ):  # after a restart that failed, and said so
                self.events["restarts of a failed worker"] += 1
                model.restart()
            if time.monotonic() > give_up:
                self.tally.complain(
                    f"not all workers came back: {[(one.state, one.reason) for one in model.workers]}"
                )
                return
            time.sleep(0.01)
        # As many at once as are allowed: none that has ended is still counted.
        inputs = {"x": np.ones(3, np.int64), "tag": np.array(5), "pause": np.array(0.0), "how": np.array(0)}
        try:
            futures = [model.submit(inputs, timeout=_PATIENCE_S) for _ in range(_MAX_PENDING)]
            if any(int(future.result()["tag"]) != 5 for future in futures):
                self.tally.complain("a wrong answer between the rounds")
            del futures
        except opexec.OpexecError as error:
            self.tally.complain(f"nothing is called, and a call ends with {error!r}")
        holdings = Holdings.now()
        # Besides what the model counts there may be a page for each worker, where it counts for its attached processes.
        stats = model.stats()
        if stats.in_flight or stats.blocks_held:
            self.tally.complain(
                f"nothing is called, and {stats.in_flight} calls and {stats.blocks_held} blocks are counted"
            )
        uncounted = holdings.segments - stats.shared_memory
        if not 0 <= uncounted <= PAGE * given.replicas:
            self.tally.complain(
                f"{holdings.segments} bytes of segments are mapped, the model counts {stats.shared_memory}"
            )
        if self.samples:
            for complaint in holdings.beyond(self.samples[0][1]):
                self.tally.complain(f"after round {len(self.samples) + 1}: {complaint}")
        self.samples.append((stats.restarts, holdings))

    @property
    def growth(self) -> tuple[int, int]:
        """Bytes of private memory that came on top after the first third of the rounds, and workers started meanwhile."""
        samples = self.samples[len(self.samples) // 3 :]
        third = max(len(samples) // 3, 1)
        early = statistics.median(holdings.memory for _, holdings in samples[:third])
        late = statistics.median(holdings.memory for _, holdings in samples[-third:])
        return int(late - early), samples[-1][0] - samples[0][0]


def report(soak: Soak, left: list[str]) -> bool:
    """Print what was counted; whether all promises were kept."""
    tally = soak.tally
    print(f"calls: {sum(tally.calls.values())}")
    for way, count in tally.calls.most_common():
        print(f"    {count:9} {way}")
    print("which ended with")
    for outcome, count in tally.outcomes.most_common():
        print(f"    {count:9} {outcome}")
    print(f"the latest ended {1000 * tally.overran:.0f} ms after its deadline")
    print("events")
    for event, count in soak.events.most_common():
        print(f"    {count:9} {event}")
    for complaint in left:
        tally.complain(f"afterwards: {complaint}")
    if soak.samples:
        grown, workers = soak.growth
        print(f"workers started: {soak.samples[-1][0] + soak._given.replicas}")
        print(
            f"private memory: {soak.samples[0][1].memory >> 10} KiB after the first of {len(soak.samples)} rounds, "
            f"{soak.samples[-1][1].memory >> 10} KiB after the last; {grown / 1024:+.0f} KiB after a third of them, over {workers} starts"
        )
        print(
            f"shared memory: {soak.samples[0][1].segments >> 10} KiB after the first round, {soak.samples[-1][1].segments >> 10} KiB after the last"
        )
        if grown > _GROWTH + _GROWTH_PER_WORKER * workers:
            tally.complain(f"private memory grew by {grown} bytes")
    print(f"promises broken: {tally.broken}")
    for complaint in tally.complaints:
        print(f"    {complaint}")
    return not tally.broken


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, help="instead of --minutes")
    parser.add_argument(
        "--round-seconds", type=float, default=20.0, help="between looks at what the process holds"
    )
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument(
        "--clients", type=int, default=2, help="attached processes; every second one is killed"
    )
    parser.add_argument("--kill-every", type=float, default=1.0, help="seconds")
    parser.add_argument(
        "--replace-every", type=float, default=7.0, help="seconds between restart() or swap()"
    )
    parser.add_argument("--max-calls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    if given.seconds is None:
        given.seconds = 60 * given.minutes
    steady_malloc()
    logging.getLogger("opexec").setLevel(logging.CRITICAL)  # deaths are what this is about
    with tempfile.TemporaryDirectory() as runtime:
        os.environ["OPEXEC_RUNTIME"] = runtime
        opexec.load(
            _SOURCE
        ).close()  # what stays: the threads that start and watch workers, and their descriptors
        before = Holdings.now()
        with opexec.load(
            _SOURCE,
            replicas=given.replicas,
            timeout=TIMEOUT_S,
            grace=1.0,
            max_pending=_MAX_PENDING,
            max_calls=given.max_calls,
            shm_limit="2GiB",
            restart=opexec.RestartPolicy(max_restarts=1_000_000, backoff=0.01, max_backoff=0.2),
        ) as model:
            with model.share("soaked"):
                soak = Soak(model, "soaked", given)
                soak.run()
        del model, soak._model
        after = Holdings.now()
    left = after.beyond(before)
    if after.segments:
        left.append(f"{after.segments} bytes of segments are mapped")
    print(
        f"{given.seconds:g} s, {given.replicas} workers, {given.callers} threads, {given.clients} attached processes, seed {given.seed}"
    )
    return 0 if report(soak, left) else 1


if __name__ == "__main__":
    sys.exit(main())
