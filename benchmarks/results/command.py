"""Runs all benchmarks, or takes what is stored, and writes the page."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.results import page
from benchmarks.scenarios.command import SCENARIOS

STORE = Path(__file__).resolve().parent
PAGE = STORE.parent / "RESULTS.md"


def main(argv: Sequence[str]) -> int:
    """Measure, store, write; 1 if a benchmark failed, in which case what was stored of it before stays."""
    arguments = _parser().parse_args(argv)
    console = Console(stderr=True)
    failed = []
    for name in [] if arguments.page_only else arguments.only:
        begin = time.monotonic()
        command = [sys.executable, "-m", "benchmarks", name]
        command += ["--quick"] if arguments.quick else []
        output = arguments.store / name if name == "latency" else arguments.store
        console.rule(name)
        if subprocess.run([*command, "--output", str(output)]).returncode:
            failed.append(name)
        console.print(f"{name}: {time.monotonic() - begin:.0f} s", highlight=False)
    target = PAGE if arguments.store == STORE else arguments.store / PAGE.name
    target.write_text(page.written(arguments.store, target.parent, _command(argv)), "utf-8")
    print(target)
    if failed:
        console.print(f"Not renewed, or only in part: {', '.join(failed)}.")
    return 1 if failed else 0


def _command(argv: Sequence[str]) -> str:
    """The command without what only says where to begin and where to write."""
    return " ".join(["python -m benchmarks results", *(["--quick"] if "--quick" in argv else [])])


def _parser() -> argparse.ArgumentParser:
    names = ["latency", *SCENARIOS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks results",
        description="Run every benchmark and write benchmarks/RESULTS.md of what they found. A full run takes about 25 minutes on two "
        "cores, and a quiet machine.",
    )
    parser.add_argument("--quick", action="store_true", help="short runs, which decide nothing")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=names, default=names, help=shlex.join(names)
    )
    parser.add_argument(
        "--page-only", action="store_true", help="measure nothing: write the page of what is stored"
    )
    parser.add_argument("--store", type=Path, default=STORE, metavar="DIR", help="default benchmarks/results")
    return parser
