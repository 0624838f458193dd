"""`python -m benchmarks frameworks`: what isolation adds to a call of each framework, over the call in process."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.driver_process import ContenderFailed
from benchmarks.frameworks import table
from benchmarks.frameworks.comparing import (
    MODELS,
    Comparison,
    Floors,
    ModelsNotWritten,
    Settings,
    compare,
    settings,
)
from benchmarks.frameworks.environments import FRAMEWORKS
from benchmarks.latency import positive
from benchmarks.machine import machine_facts
from opexec import BuildError

DEFAULT_OUTPUT = Path("build/benchmarks/frameworks")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "frameworks.md"


def main(argv: Sequence[str]) -> int:
    """Measure, write results.json and results.md, print the table; 1 if a framework could not be measured."""
    arguments = _parser().parse_args(argv)
    chosen = arguments.only or list(FRAMEWORKS)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    run = measure(
        chosen,
        settings(quick=arguments.quick, rounds=arguments.rounds),
        console,
        "python -m benchmarks frameworks " + shlex.join(argv),
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "results.json").write_text(json.dumps(table.to_json(run), indent=1) + "\n")
    text = table.to_markdown(run)
    (arguments.output / "results.md").write_text(f"# Frameworks\n\n{text}", "utf-8")
    if arguments.docs:
        table.update(PAGE, text)
    print(text)
    return 1 if run.failures else 0


def measure(names: Sequence[str], settings: Settings, console: Console, command: str) -> table.Run:
    """One run. Ctrl-C ends it early; frameworks that were measured until then are kept."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    machine = machine_facts()
    found: list[Comparison] = []
    failures: dict[str, str] = {}
    with Floors() as floors:
        for name in names:
            try:
                # A line of its own and no bar: a thread that redraws would be one more neighbour.
                found += compare(
                    name,
                    FRAMEWORKS[name],
                    floors,
                    settings,
                    lambda text: console.print(text, highlight=False),
                )
            except (BuildError, ContenderFailed, ModelsNotWritten) as error:
                failures[name] = str(error)
                console.print(f"{name} failed: {error}", markup=False)
            except KeyboardInterrupt:
                if not found:
                    raise
                console.print(f"Interrupted: reporting {len(found) // len(MODELS)} frameworks.")
                break
    return table.Run(command.strip(), date, machine, settings, found, failures)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks frameworks",
        description="Measure what isolation adds to a call of each framework, over the same platform's call in process. "
        "Environments are built at the first run, which takes a while; a full run then takes about five minutes.",
    )
    parser.add_argument("--rounds", type=positive, help="default 9, with --quick 3; below 9 decides nothing")
    parser.add_argument(
        "--quick", action="store_true", help="short measurements; shows the way, decides nothing"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=list(FRAMEWORKS), help=f"of {', '.join(FRAMEWORKS)}"
    )
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help="default %(default)s"
    )
    parser.add_argument("--docs", action="store_true", help="put the table into docs/frameworks.md too")
    return parser
