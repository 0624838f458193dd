"""`opexec bench`"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import bench_tables, models, show

if TYPE_CHECKING:
    from ...bench.comparing import Changes
    from ...bench.inputs import InputsAsked
    from ...bench.report import Report, Settings
    from ...bench.setups import Variant

_FILE = click.Path(dir_okay=False, path_type=Path)


class Counts(click.ParamType):
    """Whole numbers, 1 or more: ``1,8,32``."""

    name = "counts"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            counts = tuple(int(text) for text in value.split(","))
        except ValueError:
            counts = ()
        if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
            self.fail(
                f"expected different whole numbers from 1 up, such as 1,8,32; got {value!r}", param, ctx
            )
        return counts


@click.command(
    short_help="Measure latency: percentiles, costs, side by side.",
    epilog="""\b
Examples:
  opexec bench net.onnx --batch 1,8,32 --in-process --html report.html
  opexec bench net.onnx --env old --env new --callers 1,4
  opexec bench old.zip new.zip --input image=@photo.png --rate 50
  opexec bench net.onnx --save today.json --compare yesterday.json --fail-if-slower 1.1

Every combination of models, environments, replicas, callers, batches and sizes is measured, in one run, in turns.""",
)
@click.argument("model", nargs=-1, required=True)
@click.option(
    "--in-process", is_flag=True, help="Also each model in this process, to see what isolation costs."
)
@click.option(
    "--replicas", type=Counts(), default="1", metavar="N,...", help="Workers a model has. [default: 1]"
)
@click.option(
    "--callers", type=Counts(), default="1", metavar="N,...", help="Threads that call at once. [default: 1]"
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="CALLS",
    help="Calls a second, in an open loop: latency counts from when a call was due, so that a stall is felt by all that it holds up. "
    "[default: a closed loop, each caller as fast as it gets answers]",
)
@click.option(
    "--batch", type=Counts(), metavar="N,...", help="Sizes of the inputs' first axis, where it is open."
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="NAME=N,...",
    help="Sizes of a symbol in the specs. Can be repeated.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SHAPE",
    help="An input's shape, 1,224,224,3, or with a dtype, float32[1,3], where the model does not tell it. Can be repeated.",
)
@click.option(
    "--input",
    "-i",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="An input, as `opexec run` takes it: @image.png, @sound.wav, @x.npy, 3.5. Can be repeated. [default: made from the specs]",
)
@click.option("--inputs", "inputs_file", type=_FILE, metavar="FILE.npz", help="Inputs, each by its name.")
@click.option("--shared", is_flag=True, help="Inputs lie in shared memory (Model.empty): none is copied.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Turns.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=0.5,
    show_default=True,
    metavar="S",
    help="Calls of each in a round.",
)
@click.option(
    "--idle",
    type=click.FloatRange(0, min_open=True),
    default=0.05,
    show_default=True,
    metavar="S",
    help="Pause before a call that is made after idling.",
)
@click.option(
    "--starts", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Starts from nothing."
)
@click.option(
    "--warm-up",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long warming up may last; it ends when calls stop getting faster.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of inputs and orders.")
@click.option(
    "--save", type=_FILE, metavar="FILE", help="Write the report as JSON, for --compare and programs."
)
@click.option("--csv", type=_FILE, metavar="FILE", help="Write the figures as CSV.")
@click.option("--png", type=_FILE, metavar="FILE", help="Draw the report.")
@click.option(
    "--html", type=_FILE, metavar="FILE", help="Write a page with tables and pictures, all in one file."
)
@click.option(
    "--trace", type=_FILE, metavar="FILE", help="Write the steps of calls as a trace that Perfetto opens."
)
@click.option("--compare", type=_FILE, metavar="FILE", help="Tell what has changed since this report.")
@click.option(
    "--fail-if-slower",
    type=click.FloatRange(1),
    metavar="FACTOR",
    help="With --compare: exit with 1 if a median is beyond noise, and so many times as long.",
)
@models.how_to_run(many=True)
@models.with_traceback
@click.option(
    "--json", "as_json", is_flag=True, help="The report as JSON on standard output; times in seconds."
)
@click.pass_context
def command(ctx: click.Context, model: tuple[str, ...], traceback: bool, as_json: bool, **asked: Any) -> None:
    """Measure how long calls of each MODEL take, side by side in one run.

    After loading, the first call and warming up come rounds, in which each combination has a block of calls, in an order drawn
    anew: what disturbs the machine disturbs all alike. Intervals are of 95 %. Inputs are made from the models' specs unless
    they are given. The exit status is 1 if a model failed.
    """
    from ...bench import comparing, plots, running, trace, words
    from ...bench.report import finite, read
    from ...files import whole_files

    if asked["fail_if_slower"] is not None and asked["compare"] is None:
        raise click.UsageError("--fail-if-slower needs --compare, with the report to compare with")
    if asked["png"] or asked["html"]:
        plots.check_available()  # now, and not after all is measured
    earlier = None if asked["compare"] is None else read(asked["compare"])
    variants, inputs, settings = _understood(model, asked)
    with _steps() as tell, models.told_briefly(traceback):
        report = running.measure(variants, inputs, settings, tell)
    changes = None
    if earlier is not None:
        try:
            changes = comparing.compare(earlier, report)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--compare") from error
    if asked["save"]:
        report.write(asked["save"])
    if asked["csv"]:
        whole_files.write_text(asked["csv"], words.as_csv(report))
    if asked["png"]:
        plots.draw(report, asked["png"])
    if asked["html"]:
        from ...bench.page import page

        whole_files.write_text(asked["html"], page(report))
    if asked["trace"]:
        whole_files.write_text(asked["trace"], json.dumps(trace.of(report)) + "\n")
    if as_json:
        told = report.to_dict()
        if changes is not None:
            told["compared"] = finite(comparing.as_dict(changes))
        show.as_json(told)
    else:
        _show(report, changes)
    for line in words.notes(report):
        show.note(line)
    written = [str(asked[name]) for name in ("save", "csv", "png", "html", "trace") if asked[name]]
    if written:
        show.note(f"wrote {', '.join(written)}")
    ctx.exit(0 if report.complete and not _slower(changes, asked["fail_if_slower"]) else 1)


def _understood(model: Sequence[str], asked: dict[str, Any]) -> tuple[list[Variant], InputsAsked, Settings]:
    from ...bench import setups as making
    from ...bench.inputs import InputsAsked, from_file
    from ...bench.report import Settings

    how = {
        name: asked[name]
        for name in ("platform", "options", "device", "threads", "timeout", "load_timeout", "max_unpacked")
    }
    arguments = models.arguments(model, env=(), **how)
    envs = [
        models.for_model(number, len(model), asked["env"], "--env") for number in range(1, len(model) + 1)
    ]
    setups = making.setups(
        list(zip(models.labels(model), arguments)),
        envs,
        asked["in_process"],
        asked["replicas"],
        models.open_model,
    )
    given: dict[str, Any] = {}
    if asked["inputs_file"] is not None:
        given.update(from_file(asked["inputs_file"]))
    for name, text in models.pairs(asked["inputs"], "--input", "NAME=VALUE").items():
        given[name] = functools.partial(_input, text=text, name=name)
    settings = Settings(
        rounds=asked["rounds"],
        seconds=asked["seconds"],
        rate=asked["rate"],
        idle=asked["idle"],
        starts=asked["starts"],
        warm_up=asked["warm_up"],
        shared=asked["shared"],
        seed=asked["seed"],
    )
    variants = making.variants(setups, asked["callers"], asked["batch"] or (None,), _sizes(asked["sizes"]))
    return variants, InputsAsked(given, _shapes(asked["shapes"]), settings.seed), settings


def _input(spec: Any, text: str, name: str) -> Any:
    from ...files.input_files import value_of

    return value_of(text, spec, name)


def _sizes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    pairs = models.pairs(given, "--size", "NAME=N,...")
    return {name: Counts().convert(text, None, None) for name, text in pairs.items()}


def _shapes(given: Sequence[str]) -> dict[str, Any]:
    from ...bench.inputs import parse_shape

    try:
        pairs = models.pairs(given, "--shape", "NAME=SHAPE")
        return {name: parse_shape(name, text) for name, text in pairs.items()}
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--shape") from error


def _show(report: Report, changes: Changes | None) -> None:
    from ...bench.plots import headline

    bench_tables.latency(report)
    bench_tables.costs(report)
    bench_tables.breakdown(report)
    if changes is not None:
        bench_tables.changes(changes)
        for label in changes.only_old:
            show.note(f"{label} is only in the earlier report")
        for label in changes.only_new:
            show.note(f"{label} is only in this report")
        for fact in changes.other_machine:
            show.note(f"the machine is another one: {fact}")
        show.note(f"the machine takes {changes.pace:.3g} times as long as then for the same piece of Python")
    show.note(headline(report))
    fewest = min((len(result.rounds) for result in report.results if result.error is None), default=0)
    if report.complete and fewest < report.settings.rounds:
        show.note(f"interrupted: {fewest} of {report.settings.rounds} rounds are complete, and reported")


def _slower(changes: Changes | None, factor: float | None) -> bool:
    if changes is None or factor is None:
        return False
    slower = [each for each in changes.changes if each.slower_than(factor)]
    for each in slower:
        show.failure(
            f"{each.label} takes {each.p50.value:.3g} times as long as before; {factor:g} times is allowed"
        )
    return bool(slower)


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Tells the present step, on a terminal. Nothing is drawn meanwhile: what redraws would disturb what is measured."""
    if not (show.is_terminal() and sys.stderr.isatty()):
        yield lambda step: None
        return

    def tell(step: str) -> None:
        sys.stderr.write(f"\r\x1b[2K{step}")
        sys.stderr.flush()

    try:
        yield tell
    finally:
        tell("")
