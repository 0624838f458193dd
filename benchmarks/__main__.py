"""`python -m benchmarks COMMAND`; a command is a module with a `main(argv)` that returns the exit status, or one of the scenarios."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "batching": "benchmarks.batching",
    "frameworks": "benchmarks.frameworks.command",
    "latency": "benchmarks.latency",
    "loading": "benchmarks.loading",
    "supervision": "benchmarks.supervision",
    "results": "benchmarks.results.command",
    "sharing": "benchmarks.sharing",
    "soak": "benchmarks.soak.command",
}


def main() -> int:
    from benchmarks.scenarios import command as scenarios

    names = [*COMMANDS, *scenarios.SCENARIOS]
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in names:
        print(f"usage: python -m benchmarks {{{','.join(names)}}} [--help]", file=sys.stderr)
        return 2
    if name in scenarios.SCENARIOS:
        return scenarios.main(name, sys.argv[2:])
    status: int = importlib.import_module(COMMANDS[name]).main(sys.argv[2:])
    return status


if __name__ == "__main__":
    sys.exit(main())
