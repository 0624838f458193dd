"""A process that attaches to the model and calls it, like the owner's threads: ``python -m benchmarks.soak.client NAME SEED``.

Until its standard input ends; then it prints its tally.
"""

from __future__ import annotations

import contextlib
import logging
import select
import sys
import threading

import opexec
from benchmarks.soak.callers import TIMEOUT_S, Caller
from benchmarks.soak.tally import Tally


def main(name: str, seed: int) -> None:
    logging.getLogger("opexec").setLevel(logging.CRITICAL)
    tally, stop = Tally(), threading.Event()
    with _attached(name) as model:
        callers = [
            Caller(model, tally, seed * 100 + number, stop, (opexec.LoadError,)) for number in range(2)
        ]
        threads = [threading.Thread(target=caller.run, daemon=True) for caller in callers]
        for thread in threads:
            thread.start()
        print("attached", flush=True)
        while not select.select([sys.stdin], [], [], 0.1)[0]:
            if (
                model.workers[0].state == "failed"
            ):  # its worker died more often than a client follows by itself
                with contextlib.suppress(opexec.OpexecError):
                    model.restart()
        stop.set()
        for thread in threads:
            thread.join(60)
            if thread.is_alive():
                tally.complain("a client's thread hangs")
    print(tally.to_json(), flush=True)


def _attached(name: str) -> opexec.Model:
    while True:
        try:
            return opexec.attach(name, timeout=TIMEOUT_S, attach_timeout=60.0)
        except opexec.WorkerDied:  # the very one that was letting this process in
            continue


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
