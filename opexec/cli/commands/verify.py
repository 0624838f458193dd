"""`opexec verify`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...comparison.runner import runner_of
from .. import models, show

if TYPE_CHECKING:
    from ...package import Package

_GOOD, _ABSENT, _BAD = ("ok", "green"), ("none", "yellow"), ("WRONG", "bold red")
_ODD = ("odd", "yellow")


@click.command(
    short_help="Check a package's files, and its model on its test data.",
    epilog="""\b
Examples:
  opexec verify detector.zip
  opexec verify detector.zip --env tf221""",
)
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--no-run", is_flag=True, help="Only check the files.")
@models.how_to_run()
@click.option(
    "--rtol", type=click.FloatRange(0), default=1e-5, show_default=True, help="Relative tolerance of answers."
)
@click.option(
    "--atol", type=click.FloatRange(0), default=1e-8, show_default=True, help="Absolute tolerance of answers."
)
@models.with_traceback
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.pass_context
def command(
    ctx: click.Context,
    package: Path,
    no_run: bool,
    rtol: float,
    atol: float,
    traceback: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Check PACKAGE: every file against its manifest, and then its model, in a worker, against its test data.

    The exit status is 1 if something is wrong. What a package does not have is told, and is no failure.
    """
    from ... import package as packages

    (asked,) = models.arguments([str(package)], **how)
    with models.told_briefly(traceback):
        found = packages.read(package, limits=asked.get("limits"))
        with show.working("reading the package's files"):
            manifest = _manifest(found)
        test: dict[str, Any] = {
            "present": found.has_test_data,
            "right": None,
            "wrong": [],
            "misfits": [],
            "runs_in": None,
        }
        if found.has_test_data and not no_run and manifest["matches"] is not False:
            test |= _run(found, asked, rtol, atol, traceback)
    if as_json:
        show.as_json(
            {"package": str(found.path), "name": found.name, "manifest": manifest, "test_data": test}
        )
    else:
        _show(found, manifest, test, no_run)
    ctx.exit(1 if manifest["matches"] is False or test["right"] is False else 0)


def _manifest(found: Package) -> dict[str, Any]:
    """Whether the files are as the manifest says; all are read, even without one."""
    from ...errors import PackageError

    told: dict[str, Any] = {"present": found.has_manifest, "matches": None, "problem": None}
    if not found.has_manifest:
        found.hash()  # a zip has a checksum of each file
        return told
    try:
        found.verify()
    except PackageError as error:
        return told | {"matches": False, "problem": str(error)}
    return told | {"matches": True}


def _run(found: Package, asked: dict[str, Any], rtol: float, atol: float, traceback: bool) -> dict[str, Any]:
    from ...comparison.trial import try_package
    from ...errors import OpexecError

    told: dict[str, Any] = {}
    try:
        with (
            show.working("running the model on its test data"),
            models.open_model({**asked, "check": False}) as model,
        ):
            told["runs_in"] = runner_of(model)
            trial = try_package(found, model, rtol=rtol, atol=atol)
            wrong, told["misfits"] = list(trial.wrong), list(trial.misfits)
    except OpexecError as error:
        wrong = [str(error) if traceback else models.brief(error)]
    return told | {"right": not wrong, "wrong": wrong}


def _show(found: Package, manifest: dict[str, Any], test: dict[str, Any], no_run: bool) -> None:
    from ... import sizes

    rows: list[tuple[str, str, str, str, str | None]] = []
    rows.append(
        (*_GOOD, "package", f"{found.name}: {len(found.files)} files, {sizes.text(found.size)}", None)
    )
    if manifest["matches"] is None:
        rows.append((*_ABSENT, "manifest", "there is no manifest.json to hold the files against", None))
    elif manifest["matches"]:
        rows.append((*_GOOD, "manifest", "every file is as it says", None))
    else:
        rows.append((*_BAD, "manifest", manifest["problem"], None))
    runner = f" ({models.runner_text(test['runs_in'])})" if test["runs_in"] else ""
    if not test["present"]:
        rows.append((*_ABSENT, "test data", "there is no test_data.pkl to run the model on", None))
    elif test["right"] is None:
        why = "--no-run" if no_run else "files that changed are not run"
        rows.append((*_ABSENT, "test data", f"not run: {why}", None))
    elif test["right"]:
        rows.append((*_GOOD, "test data", f"the model gives the right answer{runner}", None))
    else:
        rows += [(*_BAD, "test data", f"{_joined(line)}{runner}", None) for line in test["wrong"]]
    cure = "The answer was held against it all the same."
    rows += [
        (*_ODD, "test data", f"it does not fit the package's own specs: {_joined(line)}", cure)
        for line in test["misfits"]
    ]
    show.findings(rows)


def _joined(text: str) -> str:
    """Several lines as one, which wraps in its column."""
    return "; ".join(line.strip() for line in text.splitlines()).replace(":; ", ": ")
