"""What commands that run models share: the options that say how, and specs and failures in words."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..sizes import duration as duration
from . import show
from .parameters import Size

if TYPE_CHECKING:
    from ..model import Model
    from ..package import Limits
    from ..spec import TensorSpec

Decorated = Callable[..., Any]

_WHICH = " N:VALUE is for the Nth model alone."


max_unpacked = click.option(
    "--max-unpacked",
    type=Size(),
    metavar="SIZE",
    help="How large a package may be when it is unpacked, however small its zip. [default: 64GiB, and from 256MiB on at most 100 "
    "times the zip's size]",
)


def limits_of(max_unpacked: int | None) -> Limits | None:
    """What the option --max-unpacked allows."""
    if max_unpacked is None:
        return None
    from ..package import Limits

    return Limits(size=max_unpacked, ratio_from=max_unpacked)


def how_to_run(many: bool = False) -> Callable[[Decorated], Decorated]:
    """The options of `opexec.load` that the command line has. With `many` models, each value may be for one of them."""
    which = _WHICH if many else ""
    options = (
        click.option(
            "--env",
            "env",
            metavar="ENV",
            multiple=True,
            help="Name of an environment (see `opexec env`), or path of an interpreter or of a venv or conda folder. [default: a "
            f"package's own environment, else this Python]{which}",
        ),
        click.option(
            "--platform",
            metavar="NAME",
            multiple=True,
            help=f"What runs the model, where its file does not tell: torch for a factory of a torch module.{which}",
        ),
        click.option(
            "--option",
            "-o",
            "options",
            metavar="KEY=VALUE",
            multiple=True,
            help=f"A setting of the platform; the value is JSON, or else a text. Can be repeated.{which}",
        ),
        click.option("--device", metavar="DEVICE", default="cpu", show_default=True, help="cpu, or cuda:N."),
        click.option(
            "--threads", type=click.IntRange(1), metavar="N", help="How many threads the framework may use."
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(0, min_open=True),
            metavar="SECONDS",
            help="How long a call may take. [default: any time]",
        ),
        click.option(
            "--load-timeout",
            type=click.FloatRange(0, min_open=True),
            metavar="SECONDS",
            help="How long a worker may take to load its model. [default: 600]",
        ),
        max_unpacked,
    )

    def decorate(function: Decorated) -> Decorated:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def arguments(
    models: Sequence[str],
    env: Sequence[str],
    platform: Sequence[str],
    options: Sequence[str],
    device: str,
    threads: int | None,
    timeout: float | None,
    load_timeout: float | None,
    max_unpacked: int | None,
) -> list[dict[str, Any]]:
    """For each model, keyword arguments for `opexec.load`, the source among them. Raises a UsageError."""
    found: list[dict[str, Any]] = []
    for number, source in enumerate(models, 1):
        asked: dict[str, Any] = {"source": source, "device": device, "threads": threads, "timeout": timeout}
        if load_timeout is not None:
            asked["load_timeout"] = load_timeout
        for name, given, hint in (("env", env, "--env"), ("platform", platform, "--platform")):
            values = for_model(number, len(models), given, hint)
            if len(values) > 1:
                raise click.BadParameter(
                    f"two values for {source}: {values[0]!r} and {values[1]!r}", param_hint=hint
                )
            if values:
                asked[name] = values[0]
        settings = {}
        for pair in for_model(number, len(models), options, "--option"):
            key, equals, value = pair.partition("=")
            if not equals or not key:
                raise click.BadParameter(f"expected KEY=VALUE; got {pair!r}", param_hint="--option")
            settings[key] = _plain(value)
        if settings:
            asked["options"] = settings
        limits = limits_of(max_unpacked)
        if limits is not None:
            asked["limits"] = limits
        found.append(asked)
    return found


def for_model(number: int, count: int, values: Sequence[str], hint: str) -> list[str]:
    """Those of the values that are for this model: with its number before a colon, or else without any."""
    own, general = [], []
    for value in values:
        which, colon, rest = value.partition(":")
        if not (colon and which.isdigit()):
            general.append(value)
        elif not 1 <= int(which) <= count:
            raise click.BadParameter(
                f"{value!r} is for model {which}; there are {count}, counted from 1", param_hint=hint
            )
        elif int(which) == number:
            own.append(rest)
    return [*general, *own] if hint == "--option" else own or general


def pairs(given: Sequence[str], hint: str, form: str) -> dict[str, str]:
    """Values of an option by the name before the ``=``. Raises a UsageError."""
    found: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"expected {form}; got {pair!r}", param_hint=hint)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice", param_hint=hint)
        found[name] = value
    return found


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def open_model(asked: Mapping[str, Any]) -> Model:
    """Load a model; what `load` says of its arguments is a mistake in the command line."""
    from .. import load

    try:
        return load(**asked)
    except (ValueError, TypeError) as error:
        from ..errors import OpexecError

        if isinstance(error, OpexecError):
            raise
        raise click.UsageError(str(error)) from error


@contextmanager
def told_briefly(traceback: bool) -> Iterator[None]:
    """What is wrong, without the model's traceback, unless that was asked for."""
    from ..errors import OpexecError

    try:
        yield
    except OpexecError as error:
        if traceback or brief(error) == str(error):
            raise
        raise OpexecError(f"{brief(error)} (--traceback shows where)") from error


def brief(error: BaseException) -> str:
    """What an error says, without the traceback of a worker that follows it."""
    text = str(error) or type(error).__name__
    return text.partition("\n\n")[0].rstrip()


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Tells the present step of something long, on a terminal and while it lasts; what is called with each step."""
    if not (show.is_terminal() and sys.stderr.isatty()):
        yield lambda step: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as status:
        yield lambda step: status.update(Text(step))


def with_traceback(function: Decorated) -> Decorated:
    return click.option(
        "--traceback", is_flag=True, help="Show where a model failed, with the traceback of its worker."
    )(function)


def spec_text(spec: TensorSpec) -> str:
    """``x: float32[n, 3]``"""
    return repr(spec)


def specs_texts(specs: Sequence[TensorSpec] | None) -> list[str]:
    if specs is None:
        return ["not known"]
    return [spec_text(spec) for spec in specs] or ["none"]


def specs_json(specs: Sequence[TensorSpec] | None) -> list[dict[str, Any]] | None:
    return None if specs is None else [spec.to_dict() for spec in specs]


def runner_text(runner: dict[str, Any]) -> str:
    """Of what `comparison.runner.runner_of` tells: ``onnxruntime 1.23.2 in Python 3.11.7``."""
    python = f"Python {runner['python']}"
    if runner["framework"] in ("", "python"):
        return python
    return f"{runner['framework']} {runner['framework_version']} in {python}"


def labels(models: Sequence[str]) -> list[str]:
    """A short name for each model: as much of its path's end as tells it from the others."""
    parts = [Path(os.path.normpath(model)).parts for model in models]
    short = []
    for own in parts:
        depth = 1
        others = [other for other in parts if other != own]
        while depth < len(own) and any(other[-depth:] == own[-depth:] for other in others):
            depth += 1
        short.append("/".join(own[-depth:]))
    return [
        f"{text} ({short[: index + 1].count(text)})" if short.count(text) > 1 else text
        for index, text in enumerate(short)
    ]
