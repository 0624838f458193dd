"""`python -m benchmarks latency`: floors, the call in process, opexec and its peers, interleaved in one run."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import goals, grid, peer_environments, plot, report
from benchmarks.contender import REGISTRY, Options, Unavailable
from benchmarks.driver_process import Drivers
from benchmarks.grid import Case, Settings
from benchmarks.idle import IdleCpu, contenders_of, measure_idle
from benchmarks.invocation import spelled
from benchmarks.machine import machine_facts
from benchmarks.rounds import Outcome, Rounds

DEFAULT_OUTPUT = Path("build/benchmarks/latency")
_WIDTH = 140
"""Columns of what is printed where there is no terminal."""


def main(argv: Sequence[str]) -> int:
    """Measure, write results.json, results.md and results.png, print the verdicts; 1 if something failed to run."""
    arguments = _parser().parse_args(argv)
    settings = grid.settings(quick=arguments.quick, rounds=arguments.rounds)
    cases = grid.cases(settings.sizes, arguments.cases, everything=arguments.everything)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH)
    if not cases:
        console.print(
            f"No case matches {' '.join(arguments.cases)}; they are named contender/model/bytes/mode."
        )
        return 2
    run = measure(
        cases,
        settings,
        Options(arguments.python),
        console,
        spelled("latency", argv),
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "results.json").write_text(json.dumps(report.to_json(run), indent=1) + "\n")
    (arguments.output / "results.md").write_text(report.to_markdown(run, "results.png"))
    plot.draw(run, arguments.output / "results.png")
    _print_verdicts(run, console)
    print(arguments.output / "results.md")
    return 1 if run.outcome.failures else 0


def measure(
    cases: Sequence[Case], settings: Settings, options: Options, console: Console, command: str
) -> report.Run:
    """One run over `cases`. Ctrl-C ends it early; what was measured until then is kept."""
    build_environments(cases, console)
    machine = machine_facts()
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    idle: list[IdleCpu] = []
    # Drawn between measurements only: a thread that redraws would be one more neighbour.
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        auto_refresh=False,
    )
    with Drivers(options) as drivers, progress:
        task = progress.add_task("starting", total=len(cases) * settings.rounds)

        def step(number: int, case: Case) -> None:
            progress.update(
                task, description=f"round {number + 1} of {settings.rounds}: {case}", advance=1, refresh=True
            )

        rounds = Rounds(cases, settings, drivers, step=step)
        try:
            rounds.run()
            progress.update(task, description=f"idle for {settings.idle_seconds:g} s", refresh=True)
            idle = measure_idle(contenders_of(cases), drivers, settings)
            progress.update(task, description="done", refresh=True)
        except KeyboardInterrupt:
            if not rounds.outcome.rounds:
                raise
            console.print(f"Interrupted: reporting the {rounds.outcome.rounds} rounds that are complete.")
    return report.Run(command.strip(), date, machine, settings, rounds.outcome, idle)


def build_environments(cases: Sequence[Case], console: Console) -> None:
    """Before anything is measured. Those that cannot be built are named when their turn comes."""
    for name in sorted({case.contender for case in cases if REGISTRY[case.contender].requirements}):
        try:
            peer_environments.interpreter(name)
        except Unavailable:
            console.print(f"{name}: its environment cannot be built.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks latency",
        description="Measure the latency of a call: floors of this machine, in process, opexec and its peers, "
        "interleaved in one run. A full run takes about 15 minutes; peers' environments are built first, once.",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        help=f"default {grid.MINIMUM_ROUNDS}, with --quick 3; below {grid.MINIMUM_ROUNDS} decides nothing",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and short measurements; shows the way, decides nothing",
    )
    parser.add_argument(
        "--everything",
        action="store_true",
        help="peers that open quickly at every size and in both modes, which more than doubles the time",
    )
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help="default %(default)s"
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="only cases whose name contender/model/bytes/mode matches one of these shell-style patterns, "
        "such as 'opexec*/tiny/*/busy'; "
        f"contenders: {', '.join(name for name, entry in REGISTRY.items() if entry.kind != 'floor')}",
    )
    parser.add_argument(
        "--python",
        default=another_version(),
        metavar="VERSION",
        help="of opexec's worker; default %(default)s, not the caller's own",
    )
    return parser


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1 round, got {value}")
    return value


def another_version() -> str:
    """Of Python, for workers: not the one that this runs in."""
    return "3.12" if sys.version_info[:2] == (3, 13) else "3.13"


def _print_verdicts(run: report.Run, console: Console) -> None:
    colors = {goals.NOT_MET: "red", goals.NOT_MEASURED: "dim"}
    table = Table("case", "must", "aim", "measured", "verdict")
    for verdict in goals.judge(run.outcome, run.idle):
        color = colors.get(verdict.verdict, "green")
        table.add_row(
            verdict.title, verdict.must, verdict.aim, verdict.measured, f"[{color}]{verdict.verdict}[/]"
        )
    console.print(table)
    _print_problems(run.outcome, console)
    if not run.decides:
        console.print(f"Fewer than {grid.MINIMUM_ROUNDS} rounds: this shows the way and decides nothing.")


def _print_problems(outcome: Outcome, console: Console) -> None:
    for name, reason in outcome.unavailable.items():
        console.print(f"{name} cannot run here: {reason}", markup=False)
    for name, failure in outcome.failures.items():
        console.print(f"{name} failed: {failure}", markup=False)
