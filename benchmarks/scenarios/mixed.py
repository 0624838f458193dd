"""Small calls while large ones are under way: alone, beside large calls to another worker, and to the same one."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack, nullcontext

import numpy as np

import opexec
from benchmarks.ratios import Spread, percentiles
from benchmarks.scenarios import loops, opened
from benchmarks.scenarios.result import Bar, Found, Settings, number, text

LARGE_NBYTES = 6_912_000
ALONE, OTHER, EMPTY, SAME = (
    "alone",
    "large calls to another worker",
    "large calls from `empty` to another worker",
    "large calls to the same worker",
)


def measure(settings: Settings) -> Found:
    small = np.arange(16, dtype=np.float32)
    large = np.arange(LARGE_NBYTES // 4, dtype=np.float32)
    p50s: dict[str, list[float]] = {name: [] for name in (ALONE, OTHER, EMPTY, SAME)}
    p99s: dict[str, list[float]] = {name: [] for name in p50s}
    order = random.Random(0)
    with ExitStack() as stack:
        model = stack.enter_context(opened.load("last"))
        other = stack.enter_context(opened.load("last"))
        prepared = other.empty("x", large.shape)
        np.copyto(prepared, large)
        beside = {ALONE: None, OTHER: (other, large), EMPTY: (other, prepared), SAME: (model, large)}
        for number_ in range(settings.rounds):
            settings.step(f"mixed: round {number_ + 1} of {settings.rounds}")
            for name in order.sample(list(beside), len(beside)):
                pair = beside[name]
                meanwhile = nullcontext() if pair is None else loops.beside(_call(*pair))
                with loops.no_collector(), meanwhile:
                    found = percentiles(loops.durations(_call(model, small), settings.seconds))
                p50s[name].append(found["p50"] / 1e3)
                p99s[name].append(found["p99"] / 1e3)
    spreads = {name: (Spread.of(p50s[name]), Spread.of(p99s[name])) for name in p50s}
    alone = spreads[ALONE][0].median
    return Found(
        title="Small calls beside large ones",
        question="A thread calls with 64 B, another one of the same process with 6.9 MB. How long do the small calls take?",
        heads=("64 B calls", "p50, µs", "p99, µs", "p50 against alone"),
        rows=[
            (name, text(p50), text(p99), f"{number(p50.median / alone)} x")
            for name, (p50, p99) in spreads.items()
        ],
        bars=[Bar.of(name, "opexec", p50) for name, (p50, _) in spreads.items()],
        axis="p50 of a 64 B call, µs",
        log=True,
        notes=[
            "A worker answers in order, so small calls to the same worker wait for the large ones. Copying a large input happens in the "
            "calling process, and so does waiting for one's turn with its interpreter; `model.empty` saves the copy."
        ],
        rounds={
            **{f"p50 {name}": found for name, found in p50s.items()},
            **{f"p99 {name}": found for name, found in p99s.items()},
        },
    )


def _call(model: opexec.Model, x: np.ndarray) -> Callable[[], None]:
    def call() -> None:
        answer = model.infer({"x": x})["y"]
        if answer[0] != x[-1]:
            raise ValueError(f"expected {x[-1]}, got {answer[0]}")

    return call
