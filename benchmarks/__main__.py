"""`python -m benchmarks COMMAND`; a command is a module here with a `main(argv)` that returns the exit status."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {"frameworks": "benchmarks.frameworks.command", "latency": "benchmarks.latency"}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: python -m benchmarks {{{','.join(COMMANDS)}}} [--help]", file=sys.stderr)
        return 2
    status: int = importlib.import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:])
    return status


if __name__ == "__main__":
    sys.exit(main())
