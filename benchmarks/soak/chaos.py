"""What befalls the workers: a signal every second, and now and then a restart or a swap by the user."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter

import opexec
from benchmarks.soak.tally import Tally

_SIGNALS = {
    signal.SIGKILL: 4,
    signal.SIGSEGV: 2,
    signal.SIGABRT: 1,
    signal.SIGTERM: 1,
    signal.SIGSTOP: 2,
}


class Killer:
    """Sends a worker a signal, every `every` seconds until `stop` is set. `done` counts them by name."""

    def __init__(self, model: opexec.Model, seed: int, stop: threading.Event, every: float) -> None:
        self.done: Counter[str] = Counter()
        self._model = model
        self._random = random.Random(seed)
        self._stop = stop
        self._every = every
        self._stopped: list[int] = []

    def run(self) -> None:
        while not self._stop.wait(self._every):
            # Those that are still loading, too. What ends between the look and the signal is not reaped before its model knows.
            pids = [
                worker.pid
                for worker in self._model.workers
                if worker.pid and worker.state not in ("stopped", "failed")
            ]
            if not pids:
                continue
            number = self._random.choices([*_SIGNALS], [*_SIGNALS.values()])[0]
            pid = self._random.choice(pids)
            if _is_child(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    self.done[signal.Signals(number).name] += 1
                    if number == signal.SIGSTOP:
                        self._stopped.append(pid)

    def let_go(self) -> None:
        """Those that were stopped go on, unless they were ended for it."""
        while self._stopped:
            pid = self._stopped.pop()
            if _is_child(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def _is_child(pid: int) -> bool:
    """Its number may be another process's meanwhile."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1]) == os.getpid()
    except OSError:
        return False


class Operator:
    """The user: replaces all workers by `restart` or `swap`, every `every` seconds until `stop` is set."""

    def __init__(
        self, model: opexec.Model, source: str, tally: Tally, seed: int, stop: threading.Event, every: float
    ) -> None:
        self.done: Counter[str] = Counter()
        self._model = model
        self._source = source
        self._tally = tally
        self._random = random.Random(seed)
        self._stop = stop
        self._every = every

    def run(self) -> None:
        while not self._stop.wait(self._every):
            swap = self._random.random() < 0.5
            name = "swap" if swap else "restart"
            try:
                if swap:
                    self._model.swap(self._source)
                else:
                    self._model.restart()
            except (opexec.WorkerDied, opexec.LoadError):  # a signal met a worker that was loading
                name += " failed"
            except BaseException as error:
                self._tally.complain(f"{name}: ended with {error!r}")
            self.done[name] += 1
