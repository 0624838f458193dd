"""`opexec env create`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ... import described, show

if TYPE_CHECKING:
    from ....environment import Environment

_MANY = ("requirements", "constraints", "find_links", "extra_index_urls")


@click.command(
    short_help="Build an environment and give it a name.",
    epilog="""\b
Examples:
  opexec env create tf115 --python 3.7 'tensorflow==1.15.5' 'protobuf<3.21' 'numpy<1.19'
  opexec env create app -r requirements.txt
  opexec env create app-again --python 3.12 --lock app.lock""",
)
@click.argument("name")
@click.argument("requirement", nargs=-1)
@click.option(
    "--python",
    metavar="VERSION",
    help="Version (3.7), range ('>=3.8,<3.12') or path of the Python to use. [default: this one if the requirements have packages "
    "for it, else the newest found that they do, else one that uv downloads]",
)
@click.option(
    "--requirements",
    "-r",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Take requirements from a requirements.txt, a pyproject.toml, a script with PEP 723 metadata (.py), or a conda "
    "environment.yml. Can be repeated.",
)
@click.option(
    "--constraint",
    "-c",
    "constraints",
    metavar="CONSTRAINT",
    multiple=True,
    help="A limit on versions, such as 'numpy<2', for packages that are installed anyway; or a file of them. Can be repeated.",
)
@click.option(
    "--find-links",
    "-f",
    metavar="PLACE",
    multiple=True,
    help="A folder or page with packages, besides the index. Can be repeated.",
)
@click.option("--index-url", "-i", metavar="URL", help="The package index. [default: as pip and uv are set]")
@click.option(
    "--extra-index-url",
    "extra_index_urls",
    metavar="URL",
    multiple=True,
    help="One more index. Can be repeated.",
)
@click.option(
    "--env",
    "env_vars",
    metavar="KEY=VALUE",
    multiple=True,
    help="An environment variable of workers that run there. Can be repeated.",
)
@click.option(
    "--lock",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Install the exact versions in this file, as `opexec env lock` writes it.",
)
@click.option(
    "--replace", is_flag=True, help="Let the name stand for this one, whatever it stood for before."
)
def command(
    name: str,
    requirement: tuple[str, ...],
    python: str | None,
    files: tuple[Path, ...],
    replace: bool,
    **arguments: Any,
) -> None:
    """Build an environment with each REQUIREMENT ('numpy<2', as for pip) and call it NAME.

    What was built before is not built again. numpy is always installed, because a worker needs it.
    """
    from ....environments import store as environment_store
    from ....errors import BuildError

    environment_store.check_name(name)
    environment = _asked_for(python, requirement, files, **arguments)
    request = environment.request()
    before = next((each for each in environment_store.names() if each.name == name), None)
    if before is not None and before.request != request and not replace:
        raise BuildError(
            f"the name {name} stands for another environment already ({_words(before.public_request)}). "
            "Give --replace, or another name."
        )
    if before is not None and not replace:
        now = environment_store.files_of(request)
        if before.files and now and before.files != now:
            raise BuildError(
                f"the name {name} stands for an environment from before the files changed that it is made from "
                f"({_words(before.public_request)}). Give --replace, or another name."
            )
        path = environment_store.named(name).resolve()
    else:
        path = environment.resolve()
        environment_store.save(name, request, path)
    found = environment_store.find(name)
    packages = found.packages
    show.note(f"{name} is Python {found.python} with {len(packages)} package{'s' * (len(packages) != 1)}")
    print(path)


def _asked_for(
    python: str | None,
    requirement: tuple[str, ...],
    files: tuple[Path, ...],
    constraints: tuple[str, ...],
    find_links: tuple[str, ...],
    index_url: str | None,
    extra_index_urls: tuple[str, ...],
    env_vars: tuple[str, ...],
    lock: str | None,
) -> Environment:
    from ....environment import Environment

    asked: dict[str, Any] = {
        "requirements": list(requirement),
        "constraints": [],
        "find_links": [_absolute(place) for place in find_links],
        "extra_index_urls": list(extra_index_urls),
    }
    for constraint in constraints:
        if os.path.isfile(constraint):
            inside = Environment.from_requirements(constraint).request()
            asked["constraints"] += inside.get("requirements", []) + inside.get("constraints", [])
        else:
            asked["constraints"].append(constraint)
    for file in files:
        inside = _read(file).request()
        for argument in _MANY:
            asked[argument] += inside.pop(argument, [])
        asked.update(inside)
    given = {"python": python, "index_url": index_url, "env_vars": _variables(env_vars)}
    given["conda" if lock and _is_of_conda(lock) else "lock"] = lock
    asked.update({argument: value for argument, value in given.items() if value})
    return Environment(**{argument: value for argument, value in asked.items() if value})


def _is_of_conda(lock: str) -> bool:
    return "@EXPLICIT" in Path(lock).read_text(encoding="utf-8", errors="replace").splitlines()


def _read(file: Path) -> Environment:
    from ....environment import Environment

    if file.name == "pyproject.toml" or file.is_dir():
        return Environment.from_pyproject(file)
    if file.suffix == ".py":
        return Environment.from_script(file)
    if file.suffix in (".yml", ".yaml"):
        return Environment.from_conda(file)
    return Environment.from_requirements(file)


def _absolute(place: str) -> str:
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"expected KEY=VALUE; got {pair!r}", param_hint="--env")
        variables[key] = value
    return variables


def _words(request: dict[str, Any]) -> str:
    return ", ".join(f"{argument} {value}" for argument, value in described.pairs(request)) or "numpy"
