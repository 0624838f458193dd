"""Loading packages: where one runs, and what its worker is told.

A package runs in the first of these whose framework has a version that it allows (`platform_version_semver`): its own environment, the one
given to `load`, the saved ones in the order of their names, the caller's interpreter. (Saved ones are passed over by Python code that
names no range: any Python would be in it, with none of what the code needs.) Versions are told from what is installed, so that nothing has to
be started to find out; that the framework which then loads the model is in the range is checked again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..environment import Environment
from ..environments import store as environment_store
from ..errors import BuildError, FrameworkNotFound, PackageError
from ..loading.request import Place
from ..package import CONFIG, Package
from . import framework_versions
from .framework_versions import Installed

Progress = Callable[[str], None] | None

PLATFORM = "opexec.workers.platforms.packaged"


class _Candidate(NamedTuple):
    what: str
    installed: Callable[[], Installed]
    place: Callable[[], Place]


def finder(package: Package, given: Callable[[Progress], Place] | None) -> Callable[[Progress], Place]:
    """`choose`, for later."""
    return lambda progress: choose(package, given, progress)


def choose(package: Package, given: Callable[[Progress], Place] | None, progress: Progress = None) -> Place:
    """The place where a package runs. `given`: the environment that `load` was given.

    Raises FrameworkNotFound if none fits, which says what each has; BuildError if an environment that would come first cannot be built.
    """
    framework = _framework(package)
    seen: dict[str, str | None] = {}
    for candidate in _candidates(package, given, progress):
        version = candidate.installed().version(framework)
        if version is None and framework == "keras":  # TensorFlow 1 and 2 up to 2.5 have it within
            version = "2" if candidate.installed().version("tensorflow") is not None else None
            if version is not None and package.platform_version_semver != "*":
                version = _keras_version(candidate.place().interpreter)
        if version is not None and fits(package, version):
            return candidate.place()
        seen[candidate.what] = version
    raise _not_found(package, seen, "Give an environment that does")


def not_found_here(package: Package, error: BaseException) -> FrameworkNotFound | None:
    """What to say of a package that could not be loaded in this process, if that is for want of its framework; `error`: what was raised."""
    version = framework_versions.here().version(_framework(package))
    if version is None and not isinstance(error, ImportError):
        return None  # it is there, though nothing tells its version
    if version is not None and fits(package, version):
        return None
    seen = {f"the caller's interpreter {sys.executable}": version}
    return _not_found(package, seen, "Install it, or give isolation='process' and an environment that has it")


def _not_found(package: Package, seen: Mapping[str, str | None], cure: str) -> FrameworkNotFound:
    """`seen`: the version of the framework in each place that was looked at."""
    called = framework_versions.called(_framework(package))
    has = "; ".join(f"{what} has {version or 'none'}" for what, version in seen.items())
    asking = "'3...'" if called == "Python" else f"requirements=['{called}==...']"
    return FrameworkNotFound(
        f"needs {called} {package.platform_version_semver!r}, and none of these has it: {has}. {cure}: env=Environment({asking})",
        package=str(package.path),
        field="platform_version_semver" if any(seen.values()) else "platform",
    )


def fits(package: Package, version: str) -> bool:
    """Whether a package may run on this version of its framework."""
    try:
        return version in package.versions
    except ValueError:  # a build of somebody's own, whose version is no number
        return package.platform_version_semver.strip() in ("", "*")


def message(package: Package, options: Mapping[str, Any], progress: Progress = None) -> dict[str, Any]:
    """What a worker is told in order to load a package; unpacks it. `options`: those given to `load`.

    ``load_custom_ops=False`` among them leaves the package's custom ops alone. Raises PackageError.
    """
    options = dict(options)
    custom_ops = list(package.custom_ops) if options.pop("load_custom_ops", True) else []
    folder = package.folder(progress)
    return {
        "platform": PLATFORM,
        "source": str(folder),
        "options": {
            "platform": package.platform,
            "inputs": [spec.to_dict() for spec in package.inputs],
            "outputs": [spec.to_dict() for spec in package.outputs],
            "settings": package.platform_config,
            "custom_ops": custom_ops,
            "devices": dict(package.input_tensor_device),
            "held": str(folder.parent / "used") if package.is_zip else None,
            "options": options,
        },
    }


def own_environment(package: Package, folder: Path | None = None) -> Environment | None:
    """The environment that a package asks for; None if it asks for none. Raises PackageError."""
    arguments = package.environment_arguments(folder)
    if arguments is None:
        return None
    try:
        return Environment(**arguments)
    except BuildError as error:
        raise PackageError(str(error), package=str(package.path), file=CONFIG, field="environment") from error


def _candidates(
    package: Package, given: Callable[[Progress], Place] | None, progress: Progress
) -> Iterator[_Candidate]:
    own = own_environment(package)
    if own is not None:
        try:
            place = Place(own.resolve(progress), own.env_vars)
        except BuildError:
            if given is None:
                raise
        else:
            yield _built("the package's own environment", place)
    if given is not None:
        yield _built("the given environment", given(progress))
    if package.platform != "python" or package.platform_version_semver != "*":
        # One that asks for no Python in particular would run in the first of them, whatever that was made for.
        yield from _saved(progress)
    yield _built(f"the caller's interpreter {sys.executable}", Place(Path(sys.executable), {}))


def _built(what: str, place: Place) -> _Candidate:
    return _Candidate(what, lambda: framework_versions.installed(place.interpreter), lambda: place)


def _saved(progress: Progress) -> Iterator[_Candidate]:
    for name in environment_store.names():
        stored = environment_store.look(name.home)
        if stored is None or not stored.complete:
            continue  # to build it only to look at it would take minutes
        has = Installed(stored.python or "", framework_versions.normalised(stored.packages))

        def place(name: str = name.name) -> Place:
            environment = environment_store.named(name)
            return Place(environment.resolve(progress), environment.env_vars)

        yield _Candidate(f"the environment {name.name!r}", lambda has=has: has, place)  # type: ignore[misc]


def _framework(package: Package) -> str:
    if package.platform == "sklearn":
        return str(package.platform_config.get("framework", "sklearn"))
    return package.platform


def _keras_version(interpreter: Path) -> str | None:
    """The version of the Keras within a TensorFlow, which has to be imported for that."""
    import subprocess

    asked = subprocess.run(
        [interpreter, "-I", "-c", "import tensorflow; print(tensorflow.keras.__version__)"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return asked.stdout.strip().rpartition("\n")[2] or None
