"""`python -m benchmarks loading`: ten frameworks loaded one after the other, and all at once by `Supervisor.load_all`.

What bounds all at once is the slowest single load, and the processor time of all of them divided by the cores. Both are taken from the single
loads of the same round, so the figure is a ratio, and holds on any machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

import opexec
from benchmarks.frameworks.comparing import written
from benchmarks.frameworks.environments import FRAMEWORKS
from benchmarks.latency import positive
from opexec.ipc.strategies import usable_cores

TEN = (
    *("tensorflow-1.15", "tensorflow-2.4", "tensorflow-2.21", "torch-1.4", "torch-2.13", "jax"),
    *("onnxruntime-1.4", "onnxruntime", "sklearn-0.23", "sklearn"),
)

Wanted = Mapping[str, dict[str, Any]]
Told = Callable[[str, str], None]


@dataclass(frozen=True)
class Single:
    """One model loaded by itself: seconds until it was ready, and of processor time in its worker until then."""

    seconds: float
    processor: float


@dataclass(frozen=True)
class Round:
    """The single loads, and seconds until all were ready at once; `ready` is when each of these was."""

    singles: dict[str, Single]
    at_once: float
    ready: dict[str, float]

    @property
    def sum(self) -> float:
        return sum(one.seconds for one in self.singles.values())

    @property
    def slowest(self) -> str:
        return max(self.singles, key=lambda name: self.singles[name].seconds)

    def bound(self, usable: int) -> float:
        """The least that all at once could take on so many cores."""
        processor = sum(one.processor for one in self.singles.values())
        return max(self.singles[self.slowest].seconds, processor / usable)


def main(argv: Sequence[str]) -> int:
    """Print a table for each round."""
    arguments = _parser().parse_args(argv)
    console = Console(stderr=True, highlight=False)
    usable = usable_cores()
    with tempfile.TemporaryDirectory(prefix="opexec-loading-") as folder:
        wanted = {name: _model(name, Path(folder)) for name in arguments.only or TEN}
        for name, one in wanted.items():
            single(one)  # files come from the disk once
            console.print(f"{name}: found")
        for number in range(arguments.rounds):
            found = measure(wanted, lambda name, step: console.print(f"{name}: {step}", markup=False))
            Console(width=100).print(_table(found, f"round {number + 1} of {arguments.rounds}"))
            print(_summary(found, usable))
    return 0


def measure(wanted: Wanted, tell: Told) -> Round:
    """Load each by itself, then all at once."""
    singles = {name: single(one) for name, one in wanted.items()}
    ready: dict[str, float] = {}
    begin = time.perf_counter()

    def progress(name: str, step: str) -> None:
        if step.startswith("ready"):
            ready[name] = time.perf_counter() - begin
        tell(name, step)

    with opexec.Supervisor() as supervisor:
        supervisor.load_all(wanted, progress=progress)
        at_once = time.perf_counter() - begin
    return Round(singles, at_once, ready)


def single(wanted: Mapping[str, Any]) -> Single:
    """Load one model and close it."""
    begin = time.perf_counter()
    with ExitStack() as stack:
        model = stack.enter_context(opexec.load(**wanted))
        seconds = time.perf_counter() - begin
        used = psutil.Process(model.workers[0].pid).cpu_times()
    return Single(seconds, used.user + used.system)


def _model(name: str, folder: Path) -> dict[str, Any]:
    """What `opexec.load` takes for the framework's quick model."""
    framework = FRAMEWORKS[name]
    interpreter = framework.environment.resolve()
    (folder / name).mkdir()
    model = written(framework, interpreter, folder / name)["quick"]
    return {
        "source": model["source"],
        "platform": model["platform"],
        "options": model["options"],
        "env": interpreter,
        "env_vars": framework.env_vars,
        "threads": 1,
    }


def _table(found: Round, title: str) -> Table:
    table = Table("framework", "alone s", "processor s", "ready, all at once s", title=title)
    for name, one in found.singles.items():
        table.add_row(name, f"{one.seconds:.2f}", f"{one.processor:.2f}", f"{found.ready[name]:.2f}")
    return table


def _summary(found: Round, usable: int) -> str:
    slowest, bound = found.slowest, found.bound(usable)
    return (
        f"One after the other {found.sum:.2f} s; the slowest alone, {slowest}, {found.singles[slowest].seconds:.2f} s; "
        f"all at once {found.at_once:.2f} s, {found.sum / found.at_once:.2f} times as fast. "
        f"On {usable} cores the least is {bound:.2f} s: {found.at_once / bound:.2f} times that."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks loading",
        description="Load ten frameworks one after the other, and all at once by Supervisor.load_all. Environments are built at the "
        "first run.",
    )
    parser.add_argument("--rounds", type=positive, default=3, help="default %(default)s")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=list(FRAMEWORKS), help=f"of {', '.join(FRAMEWORKS)}"
    )
    return parser
