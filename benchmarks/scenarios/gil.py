"""Two models that compute in pure Python: called from two threads in one process, and in two workers; and what two cores are worth."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import opexec
from benchmarks.floors.computing import Computing
from benchmarks.ratios import Spread
from benchmarks.scenarios import loops, opened, scenario_models
from benchmarks.scenarios.result import Bar, Found, Settings, Verdict, text

IN_PROCESS, WORKERS, ALONE = "two threads in process", "two workers", "one thread in process"
BARE, BARE_ALONE = "two processes, nothing between them", "one of these processes"
_GROUPS = {WORKERS: "opexec", BARE: "the least", BARE_ALONE: "the least"}


def measure(settings: Settings) -> Found:
    with contextlib.ExitStack() as stack:
        # First: a fork wants no other threads.
        compute = partial(scenario_models.pure_python(), np.zeros(1, np.float32))
        bare = [stack.enter_context(contextlib.closing(Computing(count, compute))) for count in (2, 1)]
        here = [stack.enter_context(opened.load("pure_python", isolation="none")) for _ in range(2)]
        there = [stack.enter_context(opened.load("pure_python")) for _ in range(2)]
        sides = {IN_PROCESS: here, WORKERS: there, ALONE: here[:1]}
        measures: dict[str, Callable[[int], float]] = {
            name: partial(_rate, models, settings.seconds) for name, models in sides.items()
        }
        for name, computing in zip((BARE, BARE_ALONE), bare, strict=True):
            measures[name] = partial(_bare_rate, computing, settings.seconds)
        rates: dict[str, list[float]] = {name: [] for name in measures}
        order = random.Random(0)
        for number in range(settings.rounds):
            settings.step(f"gil: round {number + 1} of {settings.rounds}")
            for name in order.sample(list(measures), len(measures)):
                with loops.no_collector():
                    rates[name].append(measures[name](number))
    against = [a / b for a, b in zip(rates[WORKERS], rates[IN_PROCESS], strict=True)]
    bound = Spread.of([a / b for a, b in zip(rates[BARE], rates[BARE_ALONE], strict=True)])
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
        bars=[Bar.of(name, _GROUPS.get(name, "in process"), spread) for name, spread in spreads.items()],
        axis="calls a second",
        notes=[
            f"Two processes that compute for themselves do {text(bound)} times what one of them does: what the second core of this machine is worth, and the most that two workers can gain."
        ],
        rounds={**rates, "ratio": against},
    )


def _rate(models: list[opexec.Model], seconds: float, number: int) -> float:
    return loops.rate([_checked(model, 7 * number) for model in models], seconds)


def _bare_rate(computing: Computing, seconds: float, number: int) -> float:
    return computing.rate(seconds)


def _checked(model: opexec.Model, start: int) -> partial[Any]:
    """A call of the model, whose answer was looked at once."""
    x = np.full(1, start, np.float32)
    got, expected = model.infer({"x": x})["y"], sum((start + i) % 7 for i in range(20_000))
    if got.tolist() != [expected]:
        raise ValueError(f"expected {expected}, got {got}")
    return partial(model.infer, {"x": x})
