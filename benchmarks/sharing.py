"""What sharing costs: calls of a client, and of the owner beside an idle client, against calls of the owner alone.

    python -m benchmarks sharing [--rounds N] [--calls N]

The three take turns in each round, with a new client process each time. The smallest median of all rounds counts: noise only adds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import opexec

_MODEL = "def twice():\n    return lambda x: {'y': x * 2}\n"
_NAME = "benchmark"


def main(argv: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sharing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.client:
        return _client(given.calls)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OPEXEC_RUNTIME"] = f"{folder}/runtime"
        model_file = Path(folder, "model.py")
        model_file.write_text(_MODEL)
        alone, beside, attached = _measure(f"{model_file}:twice", given.rounds, given.calls)
    print(f"owner alone:           {min(alone):7.1f} us")
    print(f"owner, client idle:    {min(beside):7.1f} us  x{min(beside) / min(alone):.2f}")
    print(f"client, owner idle:    {min(attached):7.1f} us  x{min(attached) / min(alone):.2f}")
    return 0


def _measure(source: str, rounds: int, calls: int) -> tuple[list[float], list[float], list[float]]:
    alone, beside, attached = [], [], []
    with opexec.load(source) as model, model.share(_NAME) as share:
        for _ in range(rounds):
            alone.append(_median_us(model, calls))
            with subprocess.Popen(
                [sys.executable, "-m", "benchmarks", "sharing", "--client", "--calls", str(calls)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as client:
                assert client.stdin is not None and client.stdout is not None
                client.stdout.readline()
                beside.append(_median_us(model, calls))
                client.stdin.write(b"go\n")
                client.stdin.flush()
                attached.append(float(client.stdout.readline()))
                client.stdin.close()
            while share.clients:
                time.sleep(0.001)
    return alone, beside, attached


def _client(calls: int) -> int:
    with opexec.attach(_NAME) as model:
        model.infer({"x": np.ones(8)})
        print("attached", flush=True)
        sys.stdin.readline()
        print(_median_us(model, calls), flush=True)
    return 0


def _median_us(model: opexec.Model, calls: int) -> float:
    inputs = {"x": np.ones(8)}
    times = []
    for count in range(calls + 100):
        began = time.perf_counter_ns()
        model.infer(inputs)
        if count >= 100:
            times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1000
