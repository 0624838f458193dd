"""Two environments that no single process can have: the oldest onnxruntime with numpy 1, and today's with numpy 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnxruntime

from opexec import BuildError, Environment
from opexec.environments import interpreter_search


def old_and_new() -> tuple[Environment, Environment]:
    """The first of each kind that this machine can have, built.

    Raises:
        BuildError: there is none of a kind.
    """
    versions = sorted(found.version_info for found in interpreter_search.installed())
    oldest, newest = (f"{version[0]}.{version[1]}" for version in (versions[0], versions[-1]))
    return _first(_old(oldest)), _first(_new(newest))


def _old(python: str) -> Iterator[Environment]:
    yield Environment(python, ["onnxruntime==1.4.0", "numpy<2"])
    # For processors and Pythons that 1.4.0 was not built for. 1.19 is the first built for numpy 2.
    yield Environment(python, ["onnxruntime<1.19", "numpy<2"])
    # There is no numpy 1 for later ones. uv downloads this one if the machine has none.
    yield Environment("3.12", ["onnxruntime<1.19", "numpy<2"])


def _new(python: str) -> Iterator[Environment]:
    # The version in this process, so that the difference between the two is opexec's.
    packages = [f"onnxruntime=={onnxruntime.__version__}", "numpy>=2"]
    yield Environment(python, packages)
    yield Environment(None, packages)


def _first(environments: Iterable[Environment]) -> Environment:
    reasons = []
    for environment in environments:
        try:
            environment.resolve()
            return environment
        except BuildError as error:
            reasons.append(str(error))
    raise BuildError("\n\n".join(reasons))
