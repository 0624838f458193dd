"""Small calls from several threads of one program, each to a worker of its own: what the interpreter's lock, which they share, makes of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import numpy as np

import opexec
from benchmarks.contender import Options
from benchmarks.grid import SMALLEST
from benchmarks.peers.pipe_bytes import PipeBytes
from benchmarks.ratios import Spread
from benchmarks.scenarios import loops, opened
from benchmarks.scenarios.result import Bar, Found, Settings, number, text

THREADS = (1, 2, 4)
INFER, BLOCK, SUBMIT, PIPE = (
    "opexec",
    'opexec, wait="block"',
    "opexec, one thread that submits to all",
    "Pipe, send_bytes, to forks",
)
_GROUPS = {PIPE: "peer"}
_UNDER_WAY = 16
"""Calls of each worker, where one thread submits."""


def measure(settings: Settings) -> Found:
    most = max(THREADS)
    inputs = {"x": np.arange(16, dtype=np.float32)}
    with ExitStack() as stack:
        pipes = []
        for _ in range(most):  # first: a fork wants no other threads
            pipe = stack.enter_context(closing(PipeBytes(Options(""))))
            pipes.append(partial(pipe.setup(SMALLEST), SMALLEST.inputs()))
        models = [stack.enter_context(opened.load("echo")) for _ in range(most)]
        blocking = [stack.enter_context(opened.load("echo", wait="block")) for _ in range(most)]
        sides: dict[str, Callable[[int], float]] = {
            INFER: lambda count: loops.rate(
                [partial(m.infer, inputs) for m in models[:count]], settings.seconds
            ),
            BLOCK: lambda count: loops.rate(
                [partial(m.infer, inputs) for m in blocking[:count]], settings.seconds
            ),
            SUBMIT: lambda count: _submitted(models[:count], inputs, settings.seconds),
            PIPE: lambda count: loops.rate(pipes[:count], settings.seconds),
        }
        rates: dict[tuple[str, int], list[float]] = {(side, count): [] for side in sides for count in THREADS}
        order = random.Random(0)
        for round_ in range(settings.rounds):
            settings.step(f"threads: round {round_ + 1} of {settings.rounds}")
            for side, count in order.sample(list(rates), len(rates)):
                with loops.no_collector():
                    rates[side, count].append(sides[side](count))
    spreads = {key: Spread.of(found) for key, found in rates.items()}
    return Found(
        title="Small calls from several threads",
        question="How many 64 B calls a second do the threads of one program make together, each to a worker of its own?",
        heads=(
            "",
            *(f"{count} worker{'s' if count > 1 else ''}, calls/s" for count in THREADS),
            "4 against 1",
        ),
        rows=[
            (
                side,
                *(text(spreads[side, count]) for count in THREADS),
                f"{number(spreads[side, most].median / spreads[side, 1].median)} x",
            )
            for side in sides
        ],
        bars=[
            Bar.of(f"{side}, {count}", _GROUPS.get(side, "opexec"), spreads[side, count])
            for side in sides
            for count in THREADS
        ],
        axis="64 B calls a second",
        notes=[
            "Threads take turns with the interpreter. One that waits gives it up and needs it back, each time by way of the kernel, with the others' "
            "code and data in the processor's caches; what a call runs in Python counts several times then. One thread that submits to all "
            "workers, or an event loop, is spared that."
        ],
        rounds={f"{side}, {count}": found for (side, count), found in rates.items()},
    )


def _submitted(models: list[opexec.Model], inputs: dict[str, Any], seconds: float) -> float:
    """Calls a second of one thread that has some under way in each of `models`."""

    def call() -> None:
        futures = [model.submit(inputs) for _ in range(_UNDER_WAY) for model in models]
        for future in futures:
            future.result()

    return loops.rate([call], seconds) * _UNDER_WAY * len(models)
