"""`opexec pack`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import models, show

if TYPE_CHECKING:
    from ...package import Limits, Package
    from ...problem import Problem

#: Platform -> its packager in `opexec.packagers`, and what that calls the model's path.
_PACKAGERS = {
    "onnx": ("create_onnx_package", "model_path"),
    "torchscript": ("create_torchscript_package", "module_path"),
    "torch": ("create_torch_package", "model_path"),
    "tensorflow": ("create_tensorflow_package", "frozen_graph_path"),
    "keras": ("create_keras_package", "model_path"),
    "jax": ("create_jax_package", "model_path"),
    "sklearn": ("create_sklearn_package", "model_path"),
}


@click.command(
    short_help="Make a package of a model's file, or of a package anew.",
    epilog="""\b
Examples:
  opexec pack net.onnx net.zip --requirement onnxruntime
  opexec pack frozen.pb adder.zip --problem addition.json --node x=in_x --node sum=add:0
  opexec pack adder/ adder.zip""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--name", help="What the model is called. [default: as the target]")
@click.option(
    "--problem",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A problem, in a JSON file or as file.py:NAME: its specs are the package's, and its first case the test data. [default: the specs that the model "
    "itself tells, and no test data]",
)
@click.option(
    "--versions",
    metavar="RANGE",
    default="*",
    show_default=True,
    help="Versions of the framework that may run it, as npm writes them.",
)
@click.option("--python", metavar="VERSION", help="Python of the package's own environment.")
@click.option(
    "--requirement",
    "-r",
    "requirements",
    metavar="REQUIREMENT",
    multiple=True,
    help="What the package's own environment has. Can be repeated.",
)
@click.option(
    "--node",
    "nodes",
    metavar="NAME=NODE",
    multiple=True,
    help="For a frozen TensorFlow graph: the node of an input or output. Needed for each.",
)
@click.option("--folder", is_flag=True, help="Write a folder, not a zip.")
@models.max_unpacked
@models.with_traceback
def command(
    model: Path,
    target: Path,
    name: str | None,
    problem: Path | None,
    versions: str,
    python: str | None,
    requirements: tuple[str, ...],
    nodes: tuple[str, ...],
    folder: bool,
    max_unpacked: int | None,
    traceback: bool,
) -> None:
    """Make the package TARGET of MODEL: a model's file or folder, or a package, which is written anew as a zip or a folder.

    The package is run on its test data, in a worker, before it appears; a wrong answer leaves nothing. Python code is packaged
    by a program, with `opexec.packagers`.
    """
    from ... import package

    path = Path(os.path.abspath(model.expanduser()))
    limits = models.limits_of(max_unpacked)
    with models.told_briefly(traceback):
        if path.exists() and package.is_package(path, limits=limits):
            if name or problem or versions != "*" or python or requirements or nodes:
                raise click.UsageError(
                    "a package is written anew as it is: only --folder and --max-unpacked go with it"
                )
            made = _anew(package.read(path, limits=limits), target, folder)
        else:
            asked = {"python": python, "requirements": list(requirements)}
            made = _create(
                path,
                limits=limits,
                package_path=target,
                model_name=name or target.stem,
                platform_version_semver=versions,
                package_as_zip=not folder,
                environment={key: value for key, value in asked.items() if value} or None,
                problem=problem,
                nodes=_pairs(nodes),
            )
    show.note(f"{made.name}, {made.platform}: {', '.join(map(repr, (*made.inputs, *made.outputs)))}")
    print(made.path)


def _anew(found: Package, target: Path, folder: bool) -> Package:
    from ...packages.draft import repack

    with show.working("writing the package"):
        return repack(found, target, as_zip=not folder)


def _create(
    path: Path,
    *,
    limits: Limits | None,
    problem: Path | None,
    nodes: dict[str, str],
    environment: dict[str, Any] | None,
    **common: Any,
) -> Package:
    from ... import packagers
    from ...comparison.python_files import find_problem
    from ...errors import OpexecError
    from ...loading import source

    platform = source.parse(path, limits=limits).platform
    if platform not in _PACKAGERS:
        raise OpexecError(
            f"{path} is for the platform {platform}, which is packaged by a program: see opexec.packagers"
        )
    wanted = None if problem is None else find_problem(problem)
    function, argument = _PACKAGERS[platform]
    if platform == "tensorflow" and path.is_dir():
        argument = "saved_model_dir"
    arguments: dict[str, Any] = {argument: path, "environment": environment, **common}
    if nodes:
        if platform != "tensorflow":
            raise click.BadParameter(f"a model of {platform} has no nodes to name", param_hint="--node")
        arguments["node_name_mapping"] = nodes
    with show.working("building the package, and trying it"):
        arguments |= _specs(path, environment) if wanted is None else _given(wanted)
        try:
            made: Package = getattr(packagers, function)(**arguments)
        except ValueError as error:
            if isinstance(error, OpexecError):
                raise
            raise OpexecError(str(error)) from error
    return made


def _given(problem: Problem) -> dict[str, Any]:
    specs: dict[str, Any] = {"input_spec": problem.inputs, "output_spec": problem.outputs}
    if problem.cases:
        case = problem.cases[0]
        specs |= {"test_input_data": case.inputs, "test_expected_out": case.outputs}
    return specs


def _specs(path: Path, environment: dict[str, Any] | None) -> dict[str, Any]:
    """What the model itself tells, in the environment that it will have."""
    from ...environment import Environment
    from ...errors import OpexecError

    asked: dict[str, Any] = {"source": path}
    if environment is not None:
        asked["env"] = Environment(**environment)
    with models.open_model(asked) as model:
        if model.inputs is None or model.outputs is None:
            raise OpexecError(f"{path} does not tell what it takes and gives; --problem does")
        return {"input_spec": model.inputs, "output_spec": model.outputs}


def _pairs(nodes: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in nodes:
        name, equals, node = pair.partition("=")
        if not equals or not name or not node:
            raise click.BadParameter(f"expected NAME=NODE; got {pair!r}", param_hint="--node")
        found[name] = node
    return found
