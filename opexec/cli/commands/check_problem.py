"""`opexec check-problem`"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...comparison.runner import runner_of
from .. import models, show

if TYPE_CHECKING:
    from ...comparison.implementing import Verdict
    from ...problem import Problem

_COLUMNS = (
    show.Column("model", shrinks=True),
    show.Column("implements it"),
    show.Column("cases", right=True),
    show.Column("runs in", shrinks=True, needs=70),
)


@click.command(
    short_help="Tell whether models implement a problem.",
    epilog="""\b
Examples:
  opexec check-problem addition.json adder.zip net.onnx
  opexec check-problem problems.py:addition adder.zip
  opexec check-problem addition.json old.pb new.pb --env 1:tf115 --env 2:tf221""",
)
@click.argument("problem", type=click.Path(path_type=Path))
@click.argument("model", nargs=-1, required=True)
@models.how_to_run(many=True)
@click.option(
    "--rtol", type=click.FloatRange(0), default=1e-5, show_default=True, help="Relative tolerance of answers."
)
@click.option(
    "--atol", type=click.FloatRange(0), default=1e-8, show_default=True, help="Absolute tolerance of answers."
)
@click.option("--strict", is_flag=True, help="What the specs leave open counts as no.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.pass_context
def command(
    ctx: click.Context,
    problem: Path,
    model: tuple[str, ...],
    rtol: float,
    atol: float,
    strict: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Tell of each MODEL whether it implements PROBLEM: two specs and maybe test data, in a JSON file or as file.py:NAME.

    A model is loaded into a worker where its file does not tell its specs, or where the problem has test data, whose answers
    must be right then. The exit status is 1 if a model does not implement the problem.
    """
    from ...comparison.python_files import find_problem
    from ...errors import OpexecError

    asked = models.arguments(model, **how)
    wanted = find_problem(problem)
    found: list[dict[str, Any]] = []
    for label, arguments in zip(models.labels(model), asked):
        told: dict[str, Any] = {"model": label, "source": arguments["source"], "runs_in": None}
        try:
            with show.working(f"trying {label}"):
                told |= _judged(wanted, arguments, rtol, atol)
        except OpexecError as error:
            told |= {"implements": None, "error": models.brief(error)}
        found.append(told)
    if as_json:
        show.as_json({"problem": wanted.name, "cases": len(wanted.cases), "models": found})
    else:
        _show(found, len(wanted.cases))
    good = ("yes",) if strict else ("yes", "not certain")
    ctx.exit(0 if all(each["implements"] in good for each in found) else 1)


def _judged(problem: Problem, arguments: dict[str, Any], rtol: float, atol: float) -> dict[str, Any]:
    from ... import package
    from ...comparison import implementing

    path = os.path.abspath(os.path.expanduser(arguments["source"]))
    limits = arguments.get("limits")
    if not problem.cases and os.path.exists(path) and package.is_package(path, limits=limits):
        described = package.read(path, limits=limits)
        return _told(implementing.by_specs(problem, described.inputs, described.outputs))
    with models.open_model(arguments) as model:
        verdict = implementing.by_running(problem, model, rtol=rtol, atol=atol)
        return _told(verdict) | {"runs_in": runner_of(model)}


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "implements": "yes" if verdict.certain else "not certain" if verdict.ok else "no",
        "error": None,
        "differences": [str(difference) for difference in verdict.fit.differences],
        "unproven": [str(difference) for difference in verdict.fit.unproven],
        "cases": None if verdict.cases is None else [list(wrong) for wrong in verdict.cases],
    }


def _show(found: list[dict[str, Any]], cases: int) -> None:
    rows = []
    for each in found:
        right = sum(not wrong for wrong in each.get("cases") or ())
        rows.append(
            (
                each["model"],
                each["implements"] or "failed",
                "" if each.get("cases") is None or not cases else f"{right} of {cases}",
                models.runner_text(each["runs_in"]) if each["runs_in"] else "",
            )
        )
    show.table(
        [column for column in _COLUMNS if cases or column.title != "cases"],
        [[cell for cell, column in zip(row, _COLUMNS) if cases or column.title != "cases"] for row in rows],
    )
    for each in found:
        lines = [each["error"]] if each["error"] else []
        lines += each.get("differences", [])
        lines += [f"{text} (not certain)" for text in each.get("unproven", [])]
        wrong = each.get("cases") or ()
        lines += [f"case {number}: {text}" for number, texts in enumerate(wrong) for text in texts]
        if lines:
            print(f"\n{each['model']}")
        for line in lines:
            print(textwrap.indent(line, "  "))
