"""Two models that compute in pure Python: called from two threads in one process, and in two workers."""

from __future__ import annotations

import contextlib
import random
from functools import partial
from typing import Any

import numpy as np

import opexec
from benchmarks.ratios import Spread
from benchmarks.scenarios import loops, opened
from benchmarks.scenarios.result import Bar, Found, Settings, Verdict, text

IN_PROCESS, WORKERS, ALONE = "two threads in process", "two workers", "one thread in process"


def measure(settings: Settings) -> Found:
    with contextlib.ExitStack() as stack:
        here = [stack.enter_context(opened.load("pure_python", isolation="none")) for _ in range(2)]
        there = [stack.enter_context(opened.load("pure_python")) for _ in range(2)]
        sides = {IN_PROCESS: here, WORKERS: there, ALONE: here[:1]}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        order = random.Random(0)
        for number in range(settings.rounds):
            settings.step(f"gil: round {number + 1} of {settings.rounds}")
            for name in order.sample(list(sides), len(sides)):
                with loops.no_collector():
                    rates[name].append(
                        loops.rate([_checked(model, 7 * number) for model in sides[name]], settings.seconds)
                    )
    against = [a / b for a, b in zip(rates[WORKERS], rates[IN_PROCESS], strict=True)]
    ratio = Spread.of(against)
    spreads = {name: Spread.of(found) for name, found in rates.items()}
    return Found(
        title="Two pure-Python models at once",
        question="How many calls a second do two threads get, in process, where one lock is held in turn, and from two workers?",
        heads=("where", "calls/s", "against two threads in process"),
        rows=[
            (name, text(spread), f"{spread.median / spreads[IN_PROCESS].median:.3g} x")
            for name, spread in spreads.items()
        ],
        verdicts=[
            Verdict.at_least(
                "GIL scenario: throughput of two workers against threads in process", ratio, 1.9, 1.97
            )
        ],
        bars=[
            Bar.of(name, "opexec" if name == WORKERS else "in process", spread)
            for name, spread in spreads.items()
        ],
        axis="calls a second",
        rounds={**rates, "ratio": against},
    )


def _checked(model: opexec.Model, start: int) -> partial[Any]:
    """A call of the model, whose answer was looked at once."""
    x = np.full(1, start, np.float32)
    got, expected = model.infer({"x": x})["y"], sum((start + i) % 7 for i in range(20_000))
    if got.tolist() != [expected]:
        raise ValueError(f"expected {expected}, got {got}")
    return partial(model.infer, {"x": x})
