"""Fetch the model, build the environments, read the picture three times over, measure, and show a table."""

from __future__ import annotations

import argparse
import contextlib
import sys

import numpy as np
from rich.console import Console
from rich.progress import track

import opexec
from benchmarks.demo import environments, measuring, model_file, reading
from benchmarks.demo.table import Row, table

# onnxruntime's own threads would spin beside the other models' calls. One for everybody is the same for everybody.
THREADS = 1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=200, help="calls measured to each model (%(default)s)")
    arguments = parser.parse_args()
    try:
        return run(arguments.rounds)
    except opexec.OpexecError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def run(rounds: int) -> int:
    console = Console()
    path = model_file.fetch()
    old, new = environments.old_and_new()
    picture = reading.pixels()
    characters = reading.characters(path)
    with contextlib.ExitStack() as stack:
        models = [
            stack.enter_context(opexec.load(path, isolation="none", threads=THREADS)),
            stack.enter_context(opexec.load(path, env=new, threads=THREADS)),
            stack.enter_context(opexec.load(path, env=old, threads=THREADS)),
        ]
        inputs = []
        for model in models:
            array = model.empty("x", (1, *picture.shape))
            array[0] = picture
            inputs.append({"x": array})
        given = [next(iter(model.infer(one).values())) for model, one in zip(models, inputs, strict=True)]
        answers = [reading.text(one, characters) for one in given]
        milliseconds = measuring.rounds(
            models,
            inputs,
            track(range(rounds), "measuring", console=Console(stderr=True), transient=True),
        )
        rows = [
            Row(model.workers[0], answer, taken, taken / milliseconds[:, 0])
            for model, answer, taken in zip(models, answers, milliseconds.T, strict=True)
        ]
    console.print(table(rows, path.name, reading.PICTURE.name, inputs[0]["x"]))
    if len(set(answers)) > 1:
        console.print("The answers differ.", style="bold red")
        return 1
    furthest = max(float(np.abs(one - given[0]).max()) for one in given[1:])
    console.print(f"The answers agree; no probability differs by more than {furthest:.1g}.", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
