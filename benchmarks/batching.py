"""What batching gains: calls a second of 8 threads that each call one model with one row at a time, with and without a BatchPolicy.

    python -m benchmarks batching [--rounds N] [--seconds S] [--threads N]

The model is 24 layers of 256 units by numpy's matmul: it reads all its weights for one row as it does for many, which is what a call costs.
With and without take turns in each round, in one run; what counts is their ratio, the median of all rounds. One thread alone shows what
the policy costs a caller who has nobody to be joined with.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

import opexec
from opexec import BatchPolicy, TensorSpec

_WIDTH, _LAYERS = 256, 24
_MODEL = f"""\
import numpy as np

def layers():
    random = np.random.default_rng(5)
    weights = [random.standard_normal(({_WIDTH}, {_WIDTH}), np.float32) / {_WIDTH} ** 0.5 for _ in range({_LAYERS})]

    def call(x):
        for weight in weights:
            x = np.maximum(x @ weight, 0)
        return {{"y": x}}

    return call
"""


class _Round(NamedTuple):
    """Calls a second, and the mean time of one in milliseconds."""

    calls_per_s: float
    mean_ms: float


def main(argv: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks batching",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--threads", type=int, default=8)
    given = parser.parse_args(argv)
    inputs, outputs = ([TensorSpec(name, "float32", ["rows", _WIDTH])] for name in "xy")
    with ExitStack() as open_models, tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.py")
        file.write_text(_MODEL)
        plain, batched = (
            open_models.enter_context(
                opexec.load(
                    f"{file}:layers", inputs=inputs, outputs=outputs, threads=1, batch=policy, timeout=60
                )
            )
            for policy in (None, BatchPolicy())
        )
        for threads in (given.threads, 1):
            measured = list(_rounds(plain, batched, threads, given.rounds, given.seconds))
            _report(threads, measured)
        stats = batched.stats().batches
        assert stats is not None
        sizes = ", ".join(f"{rows} rows: {count}" for rows, count in stats.sizes.items())
        print(f"batches: {stats.batches} of {stats.mean_size:.2f} rows on average ({sizes})")
    return 0


def _rounds(
    plain: opexec.Model, batched: opexec.Model, threads: int, rounds: int, seconds: float
) -> Iterator[tuple[_Round, _Round]]:
    for model in (plain, batched):
        _measure(model, threads, seconds / 4)
    for _ in range(rounds):
        yield _measure(plain, threads, seconds), _measure(batched, threads, seconds)


def _measure(model: opexec.Model, threads: int, seconds: float) -> _Round:
    counts = [0] * threads
    start = threading.Barrier(threads + 1)
    end = [0.0]

    def work(number: int) -> None:
        inputs = {"x": np.full((1, _WIDTH), number, np.float32)}
        start.wait()
        while time.perf_counter() < end[0]:
            model.infer(inputs)
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    began = time.perf_counter()
    end[0] = began + seconds
    start.wait()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - began
    return _Round(sum(counts) / took, 1000 * took * threads / sum(counts))


def _report(threads: int, measured: list[tuple[_Round, _Round]]) -> None:
    ratios = sorted(batched.calls_per_s / plain.calls_per_s for plain, batched in measured)
    what = f"{threads} threads" if threads > 1 else "1 thread"
    for place, name in ((0, "without"), (1, "with a BatchPolicy")):
        rate = statistics.median(pair[place].calls_per_s for pair in measured)
        mean = statistics.median(pair[place].mean_ms for pair in measured)
        print(f"{what + ', ' + name + ':':32} {rate:8.0f} calls/s, {mean:7.3f} ms a call")
    print(f"{'':32} x{statistics.median(ratios):.2f} calls/s ({ratios[0]:.2f} to {ratios[-1]:.2f})")
