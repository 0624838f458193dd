"""Runs a scenario, keeps what it found as JSON, and shows it as a table."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contender import Unavailable
from benchmarks.invocation import spelled
from benchmarks.machine import machine_facts
from benchmarks.scenarios.result import Found, Settings
from opexec import OpexecError

SCENARIOS = (
    "steps",
    "idling",
    "neuropod",
    "gil",
    "models",
    "mixed",
    "many",
    "threads",
    "throughput",
    "waiting",
)
DEFAULT_OUTPUT = Path("build/benchmarks")
SCHEMA = 1
_WIDTH = 140


def main(name: str, argv: Sequence[str]) -> int:
    """Measure the scenario, write NAME.json, print the table; 1 if it cannot run here."""
    arguments = _parser(name).parse_args(argv)
    errors = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH)
    settings = Settings.of(arguments.quick, lambda text: errors.print(text, highlight=False, markup=False))
    command = spelled(name, argv)
    machine = machine_facts()
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    scenario = importlib.import_module(f"benchmarks.scenarios.{name}")
    try:
        found: Found = scenario.measure(settings)
    except (Unavailable, OpexecError) as reason:
        errors.print(f"{name}: {reason}", markup=False)
        return 1
    data = {
        "schema": SCHEMA,
        "scenario": name,
        "command": command,
        "date": date,
        "quick": settings.quick,
        "round_count": settings.rounds,
        "machine": machine,
        "found": found.to_json(),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{name}.json"
    path.write_text(json.dumps(data, indent=1) + "\n")
    show(data, Console(width=None if sys.stdout.isatty() else _WIDTH))
    print(path)
    return 0


def show(data: dict[str, Any], console: Console) -> None:
    """Print a stored run."""
    found = Found.from_json(data["found"])
    table = Table(title=found.title, caption=found.question, title_justify="left", caption_justify="left")
    for index, head in enumerate(found.heads):
        table.add_column(head, justify="left" if index == 0 else "right")
    for row in found.rows:
        table.add_row(*row)
    console.print(table)
    for verdict in found.verdicts:
        console.print(
            f"{verdict.title}: must {verdict.must}, aim {verdict.aim}, measured {verdict.measured}: {verdict.verdict}",
            markup=False,
            highlight=False,
        )
    for note in found.notes:
        console.print(note, markup=False, highlight=False)
    if data["quick"]:
        console.print("A quick run shows the way and decides nothing.")


def _parser(name: str) -> argparse.ArgumentParser:
    scenario = importlib.import_module(f"benchmarks.scenarios.{name}")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=scenario.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="few and short rounds; shows the way, decides nothing"
    )
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help="default %(default)s"
    )
    return parser
