"""Measures one framework: in process and through opexec in turn, several times a round, each round with fresh floors.

A machine is not equally fast from one moment to the next, so a round is taken in short turns, in an order in which neither side comes
earlier on the whole. Both sides stay open over the rounds, because loading some frameworks takes longer than measuring them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contender import Options
from benchmarks.driver_process import DriverProcess
from benchmarks.frameworks import environments
from benchmarks.frameworks.environments import Framework
from benchmarks.frameworks.sides import InProcessSide, IsolatedSide, Side
from benchmarks.grid import IDLE_PAUSE_NS, SMALLEST
from benchmarks.ratios import Spread, percentiles
from benchmarks.sampling import Plan, Samples
from benchmarks.workloads import Workload
from opexec import Environment

MODELS = ("quick", "network")
INPUT = Workload("tiny", 602_112)
THREADS = 1
QUICK_NS = 50_000
"""A model that takes less in process is a quick one, with a bound of its own."""
QUICK_ALLOWANCE_NS = 30_000
TURNS = 4
"""Times that each side is measured in a round; even, so that neither comes earlier."""
_MS = 1_000_000
_WRITER = Path(__file__).with_name("writing.py")


@dataclass(frozen=True)
class Settings:
    """Rounds, and in each the plan of each turn of a side, and of each floor."""

    rounds: int
    side: Plan
    eventfd: Plan
    copy: Plan


def settings(*, quick: bool = False, rounds: int | None = None) -> Settings:
    scale = 4 if quick else 1
    return Settings(
        rounds=rounds or (3 if quick else 9),
        side=Plan(50 * _MS // scale, warm_ns=15 * _MS // scale, warm_least=3),
        eventfd=Plan(160 * _MS // scale, warm_least=2, pause_ns=IDLE_PAUSE_NS),
        copy=Plan(20 * _MS // scale, most=2_000),
    )


@dataclass(frozen=True)
class Round:
    """p50 in nanoseconds: both sides, one eventfd round trip after 5 ms of idling, and one copy of the input."""

    in_process: int
    opexec: int
    eventfd_idle: int
    copy: int

    @property
    def overhead(self) -> int:
        return self.opexec - self.in_process

    @property
    def bound(self) -> int:
        return self.copy + 2 * self.eventfd_idle

    @property
    def quick_bound(self) -> int:
        return self.copy + QUICK_ALLOWANCE_NS


@dataclass
class Comparison:
    """One model of one framework, over the rounds."""

    framework: str
    model: str
    facts: dict[str, Any]
    rounds: list[Round] = field(default_factory=list)

    @property
    def in_process(self) -> Spread:
        return Spread.of([one.in_process for one in self.rounds])

    @property
    def overhead(self) -> Spread:
        return Spread.of([one.overhead for one in self.rounds])

    @property
    def is_quick(self) -> bool:
        return self.in_process.median < QUICK_NS

    @property
    def ratio(self) -> Spread:
        """The overhead over its bound; for a quick model that is the tighter one. At most 1 is a must, 0.5 the aim."""
        return Spread.of(
            [one.overhead / (one.quick_bound if self.is_quick else one.bound) for one in self.rounds]
        )


class ModelsNotWritten(Exception):
    """A framework could not write its models; the message has its words."""


class Floors:
    """The processes that measure E and M; a context manager."""

    def __enter__(self) -> Floors:
        options = Options(worker_python="")
        self._eventfd, self._copy = DriverProcess("E", options), DriverProcess("M", options)
        self._eventfd.open(SMALLEST)
        self._copy.open(INPUT)
        return self

    def __exit__(self, *exception: object) -> None:
        for process in (self._eventfd, self._copy):
            process.end()

    def measure(self, settings: Settings) -> tuple[int, int]:
        """One eventfd round trip after idling, and one copy: p50 in nanoseconds."""
        eventfd = self._eventfd.measure(settings.eventfd)
        return percentiles(eventfd)["p50"], percentiles(self._copy.measure(settings.copy))["p50"]


def compare(
    name: str,
    framework: Framework,
    floors: Floors,
    settings: Settings,
    step: Callable[[str], None],
) -> list[Comparison]:
    """All models of a framework. Raises BuildError, ContenderFailed; `step` is told what is being done, once a round and model."""
    step(f"{name}: environment")
    interpreter = framework.environment.resolve()
    order = random.Random(name)
    with tempfile.TemporaryDirectory(prefix="opexec-frameworks-") as folder:
        models = written(framework, interpreter, Path(folder))
        here = InProcessSide(interpreter, framework.env_vars, THREADS)
        there = IsolatedSide(interpreter, framework.env_vars, THREADS)
        try:
            found = [_opened(name, model, models[model], here, there, Path(folder)) for model in MODELS]
            for number in range(settings.rounds):
                for comparison in found:
                    step(f"{name}: {comparison.model}, round {number + 1} of {settings.rounds}")
                    comparison.rounds.append(_round(comparison.model, here, there, floors, settings, order))
            there.close()
        finally:
            there.end()
            here.end()
    return found


def _opened(
    framework: str, name: str, model: dict[str, Any], here: Side, there: Side, folder: Path
) -> Comparison:
    answer = folder / f"{name}.npy"
    facts = here.load(name, model, answer)
    return Comparison(framework, name, {**facts, **there.load(name, model, answer)})


def _round(
    model: str, here: Side, there: Side, floors: Floors, settings: Settings, order: random.Random
) -> Round:
    eventfd, copy = floors.measure(settings)
    sides = {"in_process": here, "opexec": there}
    samples: dict[str, list[Samples]] = {name: [] for name in sides}
    for name in turns(order):
        samples[name].append(sides[name].time(model, settings.side))
    p50 = {name: percentiles(np.concatenate(taken))["p50"] for name, taken in samples.items()}
    return Round(p50["in_process"], p50["opexec"], eventfd, copy)


def turns(order: random.Random) -> list[str]:
    """The order of a round: A B B A A B B A, so that what grows or fades over a round meets both sides alike."""
    first, second = order.sample(["in_process", "opexec"], 2)
    return [first, second, second, first] * (TURNS // 2)


def written(framework: Framework, interpreter: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """The models of a framework, written in its environment (ONNX files in one that can write them)."""
    writer: Environment | None = environments.ONNX_WRITER if framework.writer == "onnx" else None
    finished = subprocess.run(
        [
            interpreter if writer is None else writer.resolve(),
            "-I",
            "-W",
            "ignore",
            _WRITER,
            framework.writer,
            folder,
        ],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **framework.env_vars},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if finished.returncode:
        raise ModelsNotWritten(f"{framework.writer}: {finished.stdout[-2000:]}")
    models: dict[str, dict[str, Any]] = json.loads((folder / "models.json").read_text())
    return models
