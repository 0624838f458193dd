"""Starting a worker for a model, the first time and for every replacement."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..environments import interpreters, overlay
from ..errors import BuildError, FrameworkNotFound, LoadError
from ..files import caches
from ..processes.sandbox import Confinement, Sandbox
from ..processes.worker import WorkerProcess
from ..spec import InputSpecs, parse_specs
from ..workers.failure import describe
from .request import Request, Specs
from .source import Source

#: Told the steps of a loading, for the user to see.
Report = Callable[[str], None]

#: Entered for the time in which a worker imports its framework and loads its model, by somebody who limits how many do so at once.
Turn = Callable[[], contextlib.AbstractContextManager[object]]


class Launch:
    """How to start a worker of one model: `start` gives the process, `message` names the model to it, and `read` understands its reply."""

    def __init__(
        self, request: Request, report: Report | None = None, turn: Turn = contextlib.nullcontext
    ) -> None:
        self.message: dict[str, Any] = {}
        """Names the model to a worker; there once `start` was called."""
        #: What was asked for.
        self.request = request
        self._report = report
        self._turn = turn
        self._interpreter = ""
        #: Workers start side by side, and their environment is built once.
        self._finding = threading.Lock()

    @property
    def what(self) -> str:
        """What is loaded, for messages."""
        return self.request.parsed.target

    def start(
        self, started: Callable[[WorkerProcess], None], load_timeout: float | None = None
    ) -> WorkerProcess:
        """Find the interpreter, which may mean to build it, start it and shake hands; `started` is told of the process before that.

        A worker that has not shaken hands after `load_timeout` seconds is ended. Raises BuildError, LoadError or WorkerDied.
        """
        request = self.request
        with self._finding:
            place = request.find_place(self._report)
            self.message = message(request, self._report)
            interpreter = interpreters.probe(place.interpreter)
            self._interpreter = str(interpreter)
        msgpack = overlay.ensure(interpreter)
        confinement = _confinement(request, interpreter.path, msgpack, self.message)
        self._tell(f"starting {interpreter}")
        return WorkerProcess.start(
            interpreter.path,
            request.name,
            overlay=msgpack,
            env_vars=request.variables(place.env_vars),
            cpus=request.cpus,  # type: ignore[arg-type]
            limits=request.worker_limits,
            cwd=request.cwd,  # type: ignore[arg-type]
            confinement=confinement,
            started=started,
            deadline=None if load_timeout is None else time.monotonic() + load_timeout,
        )

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Surrounds the loading itself."""
        with self._turn():
            self._tell("loading")
            yield

    def read(self, reply: dict[str, Any]) -> Specs:
        """The specs in a worker's ``loaded`` message; raises LoadError for a ``failed`` one."""
        parsed = self.request.parsed
        if reply["type"] == "failed":
            raise load_error(parsed, self._interpreter, reply["error"])
        check_version(parsed, self._interpreter, reply["framework"], reply["version"])
        return merged(self.request.specs, reply["inputs"], reply["outputs"])

    def loaded(self, reply: dict[str, Any], process: WorkerProcess) -> None:
        """Tell that the model can be called."""
        self._tell(f"ready: {reply['framework']} {reply['version']}, Python {process.hello['python']}")

    def failed(self, error: BaseException) -> None:
        """Tell that it cannot be loaded."""
        self._tell(f"failed: {str(error).partition(chr(10))[0]}")

    def _tell(self, step: str) -> None:
        if self._report is not None:
            self._report(step)


def _confinement(
    request: Request, interpreter: Path, msgpack: Path | None, told: dict[str, Any]
) -> Confinement | None:
    if not isinstance(request.sandbox, Sandbox):
        return None
    bytecode = None
    with contextlib.suppress(BuildError):  # as where the worker is told of it
        bytecode = caches.folder("bytecode")
    return Confinement(
        request.sandbox,
        interpreter=interpreter,
        told=told,
        folders=[msgpack, bytecode],
        cwd=request.cwd,  # type: ignore[arg-type]
        gpu=request.gpu is not None,
        memory=request.worker_limits.memory,
    )


def message(request: Request, report: Report | None = None) -> dict[str, Any]:
    """What a platform is to load. Of a package, the files are there then, unpacked."""
    parsed = request.parsed
    if parsed.package is not None:
        from ..packages import loading as package_loading  # only here: most programs load no package

        return package_loading.message(parsed.package, request.settings, report)
    return {"platform": parsed.platform, "source": parsed.target, "options": request.settings}


def check_version(source: Source, interpreter: str, framework: str, version: str) -> None:
    """Raise FrameworkNotFound unless a package's model was loaded by a version that it allows."""
    package = source.package
    if package is None:
        return
    from ..packages import loading as package_loading

    if not package_loading.fits(package, version):
        raise FrameworkNotFound(
            f"needs {framework} {package.platform_version_semver!r}; it was loaded by {framework} {version} in {interpreter}. "
            "Give an environment with a version in the range: env=Environment(...)",
            package=str(package.path),
            field="platform_version_semver",
        )


def merged(given: Specs, inputs: Any, outputs: Any) -> Specs:
    """The specs that were given to `load`, else those that the model carries."""
    optional = [spec["name"] for spec in inputs or () if spec.get("optional")]
    if inputs is not None:
        inputs = [{key: value for key, value in spec.items() if key != "optional"} for spec in inputs]
    specs = parse_specs(inputs, "input") if given[0] is None else given[0]
    return (
        InputSpecs(specs, optional) if specs is not None and optional else specs,
        parse_specs(outputs, "output") if given[1] is None else given[1],
    )


def load_error(source: Source, interpreter: str | os.PathLike[str], error: dict[str, str]) -> LoadError:
    """What a platform raised while it loaded, as the caller's error."""
    return LoadError(
        f"{source.target} could not be loaded by the {source.platform} platform in {interpreter}: "
        f"{error['type']}: {error['message']}\n\n{error['traceback']}",
        stage="load",
    )


def load_error_here(source: Source, error: BaseException) -> LoadError:
    """The same for what was raised in this process, where nobody has looked yet whether a package's framework is there."""
    if source.package is not None:
        from ..packages import loading as package_loading

        not_found = package_loading.not_found_here(source.package, error)
        if not_found is not None:
            return not_found
    return load_error(source, sys.executable, describe(error))
