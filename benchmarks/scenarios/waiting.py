"""A thread that computes in Python, alone, and beside a thread of the same process that waits for calls."""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from functools import partial

import numpy as np

from benchmarks.ratios import Spread
from benchmarks.scenarios import loops, opened
from benchmarks.scenarios.result import Bar, Found, Settings, Verdict, text

ALONE = "alone"
MILLISECONDS = (100, 10, 1, 0)
"""How long the model takes in the calls that the other thread makes."""


def measure(settings: Settings) -> Found:
    sides = {
        ALONE: None,
        **{_title(each): np.full(16, each, np.float32) for each in MILLISECONDS},
    }
    work: dict[str, list[float]] = {name: [] for name in sides}
    order = random.Random(0)
    with opened.load("sleeper") as model:
        for number in range(settings.rounds):
            settings.step(f"waiting: round {number + 1} of {settings.rounds}")
            for name in order.sample(list(sides), len(sides)):
                x = sides[name]
                if x is not None and not np.array_equal(model.infer({"x": x})["y"], x):
                    raise ValueError("the model did not give its input back")
                other = nullcontext() if x is None else loops.beside(partial(model.infer, {"x": x}))
                with loops.no_collector(), other:
                    work[name].append(_counted(settings.seconds))
    slower = {
        name: [100 * (alone / beside - 1) for alone, beside in zip(work[ALONE], found, strict=True)]
        for name, found in work.items()
        if name != ALONE
    }
    spreads = {name: Spread.of(found) for name, found in slower.items()}
    return Found(
        title="A caller that waits beside a busy Python thread",
        question="How much slower does a thread get on that computes in Python, while another one waits for its calls' answers?",
        heads=("the other thread calls a model that", "slows the busy one by, %"),
        rows=[(name, text(spread)) for name, spread in spreads.items()],
        verdicts=[
            Verdict.at_most(
                "a waiting caller beside a busy Python thread: slows it by",
                spreads[_title(MILLISECONDS[0])],
                10,
                2,
                "%",
            )
        ],
        bars=[Bar.of(name, "opexec", spread) for name, spread in spreads.items()],
        axis="the busy thread is slower by, %",
        notes=[
            "Each call that comes back takes its turn with the interpreter, so calls without pause slow the other thread as any two threads do."
        ],
        rounds={**work, **{f"slower, {name}": found for name, found in slower.items()}},
    )


def _title(milliseconds: int) -> str:
    return f"takes {milliseconds} ms" if milliseconds else "answers at once"


def _counted(seconds: float) -> float:
    """Steps a second of a loop that never lets go of the interpreter by itself."""
    clock = time.perf_counter
    steps, begin = 0, clock()
    end = begin + seconds
    while clock() < end:
        for _ in range(1000):
            steps += 1
    return steps / (clock() - begin)
