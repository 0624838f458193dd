"""`opexec compare`"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import models, show

if TYPE_CHECKING:
    from ...comparison.answers import OutputDifference
    from ...comparison.measuring import Comparison, Contender


@click.command(
    short_help="Compare models of one problem: answers, latency, memory.",
    epilog="""\b
Examples:
  opexec compare addition.json old.pb new.onnx --env 1:tf115 --data samples/
  opexec compare digits.json a.zip b.zip --metric score.py:accuracy --output report""",
)
@click.argument("problem", type=click.Path(path_type=Path))
@click.argument("model", nargs=-1, required=True)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    multiple=True,
    help="A folder of .npz files, or one such file. Each is a sample: an array for each input, called like it, and for the outputs "
    "that are known. Can be repeated. [default: the problem's test data]",
)
@click.option(
    "--metric",
    metavar="FILE.py:FUNCTION",
    multiple=True,
    help="A function that takes two dicts of arrays, a model's outputs and the right ones, and returns a number; its mean over "
    "the samples is told. Can be repeated.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many times every sample goes to every model and is timed, in turns.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write comparison.json and comparison.png into this folder.",
)
@click.option("--no-plot", is_flag=True, help="Draw no comparison.png.")
@models.how_to_run(many=True)
@click.option(
    "--json", "as_json", is_flag=True, help="As JSON, for programs; sizes in bytes, times in seconds."
)
@click.pass_context
def command(
    ctx: click.Context,
    problem: Path,
    model: tuple[str, ...],
    data: tuple[Path, ...],
    metric: tuple[str, ...],
    rounds: int,
    output: Path | None,
    no_plot: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Run every MODEL on the same data, and compare what they answer, how long they take, and the memory of their workers.

    PROBLEM is two specs, in a JSON file or as file.py:NAME (`opexec check-problem` tells whether models implement it). Answers are held against the
    outputs that the data has, or else against those of the first MODEL. Models may be of any framework, each in its own
    environment. The exit status is 1 if a model failed.
    """
    from ...comparison import answers, measuring, plot, record, samples
    from ...comparison.python_files import find_problem

    asked = models.arguments(model, **how)
    wanted = find_problem(problem)
    metrics = dict(map(answers.load_metric, metric))
    if len(metrics) < len(metric):
        raise click.BadParameter("two functions of one name", param_hint="--metric")
    sources = samples.find(wanted, data)
    if output is not None:
        if not no_plot:
            plot.check_available()  # now, and not after all is measured
        _make(output)
    contenders = [
        (label, arguments["source"], functools.partial(models.open_model, arguments))
        for label, arguments in zip(models.labels(model), asked)
    ]
    with models.steps() as tell, models.told_briefly(False):
        found = measuring.compare(wanted, contenders, sources, metrics=metrics, rounds=rounds, report=tell)
    told = record.as_dict(found)
    if output is not None:
        _write(output / "comparison.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        if not no_plot:
            plot.draw(found, output / "comparison.png")
    if as_json:
        show.as_json(told)
    else:
        _show(found)
    if output is not None:
        files = ["comparison.json"] + ["comparison.png"] * (not no_plot)
        show.note(f"wrote {' and '.join(str(output / file) for file in files)}")
    ctx.exit(0 if found.complete else 1)


def _make(folder: Path) -> None:
    from ...errors import OpexecError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OpexecError(f"{folder} cannot be made: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    from ...files import whole_files

    whole_files.write_text(path, text)


# ---- in words


def _show(found: Comparison) -> None:
    columns = [
        show.Column("model", shrinks=True),
        show.Column("largest diff", right=True),
        show.Column("mean diff", right=True, needs=80),
        *(show.Column(name, right=True) for name in found.metrics),
        show.Column("p50", right=True),
        show.Column("p90", right=True, needs=90),
        show.Column("p99", right=True, needs=70),
        show.Column("memory", right=True),
        show.Column("runs in", shrinks=True, needs=100),
    ]
    show.table(columns, [_row(each, found.metrics) for each in found.contenders])
    if len(found.problem.outputs) > 1:
        print()
        _show_outputs(found)
    for each in found.contenders:
        if each.error is not None:
            show.note(f"{each.label} was left out: {each.error}")
    against = {"expected": "the outputs in the data", "first model": f"those of {found.contenders[0].label}"}
    samples = (
        f"{found.samples} sample{'s' * (found.samples != 1)}, {found.rounds} round{'s' * (found.rounds != 1)}"
    )
    show.note(
        f"{samples}; answers held against "
        + against.get(
            found.reference, f"the outputs in the data, and where they lack one, {against['first model']}"
        )
    )


def _row(contender: Contender, metrics: tuple[str, ...]) -> list[str]:
    from ... import sizes

    largest, mean = _worst(contender)
    times = [contender.percentile(percent) for percent in (50, 90, 99)]
    return [
        contender.label,
        largest,
        mean,
        *(_mean(contender.answers.metrics.get(name)) for name in metrics),
        *("" if time is None else models.duration(time) for time in times),
        sizes.text(contender.resident) if contender.resident else "",
        models.runner_text(contender.runner) if contender.runner else "",
    ]


def _worst(contender: Contender) -> tuple[str, str]:
    """Largest and mean difference, of the output that differs most."""
    found = list(contender.answers.outputs.values())
    if contender.error is not None:
        return "failed", ""
    if not found:
        return "reference", ""
    return _difference(max(found, key=lambda each: (each.misshapen, each.largest, each.differing)))


def _difference(found: OutputDifference) -> tuple[str, str]:
    if found.misshapen:
        return "other shape", ""
    if not found.numbers:
        return f"{found.differing} of {found.elements} differ", ""
    return f"{found.largest:.3g}", f"{found.mean:.3g}"


def _mean(values: list[float] | None) -> str:
    return f"{sum(values) / len(values):.4g}" if values else ""


def _show_outputs(found: Comparison) -> None:
    columns = (
        show.Column("model", shrinks=True),
        show.Column("output", shrinks=True),
        show.Column("largest diff", right=True),
        show.Column("mean diff", right=True),
        show.Column("elements", right=True, needs=60),
        show.Column("differing", right=True, needs=70),
    )
    rows = [
        (each.label, name, *_difference(difference), str(difference.elements), str(difference.differing))
        for each in found.contenders
        if each.error is None
        for name, difference in each.answers.outputs.items()
    ]
    if rows:
        show.table(columns, rows)
