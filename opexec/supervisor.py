"""Supervisor: owns several models, loads them side by side and ends them together."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from .environments.build_progress import print_line, reporting
from .errors import LoadError, OpexecError
from .ipc.strategies import usable_cores
from .loading.launch import Report
from .loading.load import open_model
from .loading.request import Request
from .metrics import MetricsServer, serve
from .model import Model, WorkerInfo
from .threads import side_by_side

if TYPE_CHECKING:
    from .sharing.shared import Share

#: What may stand for a model in `load_all`: the arguments of `opexec.load`, or its source alone.
Wanted = Mapping[str, Any] | str | os.PathLike[str]


class Supervisor:
    """Models that are loaded and closed together. A context manager; all methods may be called from any thread.

    `at_once`: how many workers may import their frameworks and load their models at the same time; by default, as many as there are
    cores to use. Their environments are built and their processes started without such a limit.
    """

    def __init__(self, *, at_once: int | None = None) -> None:
        if at_once is not None and (not isinstance(at_once, int) or at_once < 1):
            raise ValueError(f"at_once is {at_once!r}; expected a positive number of models, or None")
        turns = threading.BoundedSemaphore(at_once or usable_cores())
        self._turn = lambda: turns
        self._lock = threading.Lock()
        self._models: dict[str, Model] = {}
        self._servers: list[MetricsServer] = []
        self._closed = False

    @property
    def models(self) -> Mapping[str, Model]:
        """The models by name, in the order in which they were asked for."""
        with self._lock:
            return MappingProxyType(dict(self._models))

    def load(self, source: str | os.PathLike[str], *, wait_ready: bool = True, **arguments: Any) -> Model:
        """`opexec.load`, with the same arguments, of a model that this supervisor owns.

        Raises what that raises, and ValueError for a second model of one name: give it another by ``name=``.
        """
        model = self._open(_request(source=source, **arguments), None)
        if wait_ready:
            try:
                model.wait_ready()
            except BaseException:
                self._drop([model])
                raise
        return model

    def load_all(
        self, wanted: Mapping[str, Wanted], *, progress: Callable[[str, str], None] | None = None
    ) -> dict[str, Model]:
        """Load models side by side; back when all are ready: in the time of the slowest one, as far as the cores allow.

        `wanted` maps names to the arguments of `opexec.load`: ``{"old": {"source": "a.pb", "env": old}, "new": "b.onnx"}``. `progress` is
        called with a name and a step, from any thread; without it a terminal shows one live line for each model, and anything else
        gets a line for each step, on standard error.

        If a model cannot be loaded the others of this call are closed, once every one is ready or has failed, and LoadError is raised:
        with stage ``"several"``, and each failed model's own error in its `failures`. Arguments that make no sense raise what they raise
        in `opexec.load`, before anything is started.
        """
        requests = {name: _request_for(name, one) for name, one in wanted.items()}
        self._check_all(requests.values())
        models: dict[str, Model] = {}
        with contextlib.ExitStack() as shown:
            try:
                for name, request in requests.items():
                    tell = shown.enter_context(_telling(name, progress))
                    models[name] = self._open(request, tell)
                failures = _failures(models)
                if failures:
                    raise _several(failures, len(models))
            except BaseException:
                self._drop(models.values())
                raise
        return models

    def share(self, name: str, shared_as: str | None = None) -> Share:
        """`Model.share` of the model of that name, under its own name or another one. Raises KeyError if there is no such model."""
        models = self.models
        if name not in models:
            raise KeyError(
                f"this supervisor has no model {name!r}; it has {', '.join(map(repr, models)) or 'none'}"
            )
        return models[name].share(shared_as)

    def workers(self) -> dict[str, tuple[WorkerInfo, ...]]:
        """The workers of each model by its name, as they are now."""
        return {name: model.workers for name, model in self.models.items()}

    def serve_metrics(self, port: int = 0, host: str = "127.0.0.1") -> MetricsServer:
        """Serve metrics of all models for Prometheus, at the ``url`` of what is returned, until this supervisor or that is closed.

        See `opexec.metrics.serve` for the arguments and what it raises.
        """
        server = serve(self, port, host)
        with self._lock:
            if not self._closed:
                self._servers.append(server)
                return server
        server.close()
        raise OpexecError("the supervisor is closed; it has no models to tell the metrics of")

    def close(self, drain: bool = False, timeout: float | None = None) -> None:
        """Close all models side by side, as `Model.close` does, and take no more. Closing twice does nothing."""
        with self._lock:
            self._closed = True
            models = list(self._models.values())
            servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        _close(models, drain, timeout)

    def _open(self, request: Request, report: Report | None) -> Model:
        self._check(request.name)
        model = open_model(request, False, report, self._turn)
        try:
            with self._lock:
                self._check(request.name)
                self._models[request.name] = model
        except BaseException:
            model.close()
            raise
        return model

    def _check_all(self, requests: Iterable[Request]) -> None:
        """`_check` models that are to be loaded together: no two of them may have one name, either."""
        names: set[str] = set()
        for request in requests:
            self._check(request.name)
            if request.name in names:
                raise ValueError(f"two of the models are called {request.name!r}; give another name by name=")
            names.add(request.name)

    def _check(self, name: str) -> None:
        if self._closed:
            raise OpexecError("the supervisor is closed; make another one to load models")
        if name in self._models:
            raise ValueError(f"this supervisor has a model {name!r} already; give another name by name=")

    def _drop(self, models: Iterable[Model]) -> None:
        models = list(models)
        _close(models)
        with self._lock:
            self._models = {name: one for name, one in self._models.items() if one not in models}

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _request_for(name: str, wanted: Wanted) -> Request:
    if not isinstance(name, str) or not name:
        raise TypeError(f"a model is called {name!r}; expected a text")
    if not isinstance(wanted, Mapping):
        return _request(source=wanted, name=name)
    if "source" not in wanted:
        raise TypeError(
            f"model {name!r} has no 'source' among its arguments: {', '.join(map(repr, wanted)) or 'none'}"
        )
    return _request(**{"name": name, **wanted})


def _request(**arguments: Any) -> Request:
    if "wait_ready" in arguments:
        raise TypeError("wait_ready is no argument here: load_all waits for all models")
    if arguments.get("name", "") is None:
        del arguments["name"]
    return Request(**arguments)


def _telling(
    name: str, progress: Callable[[str, str], None] | None
) -> contextlib.AbstractContextManager[Report]:
    """What tells the user the steps of one model, of several that take them at the same time."""
    if progress is not None:
        return contextlib.nullcontext(lambda step: progress(name, step))
    if sys.stderr is None or sys.stderr.isatty():
        return reporting(name, None)
    return contextlib.nullcontext(lambda step: print_line(f"{name}: {step}"))


def _failures(models: Mapping[str, Model]) -> dict[str, BaseException]:
    """Wait until every model is ready or has failed; the errors of those that failed."""
    failures: dict[str, BaseException] = {}
    for name, model in models.items():
        try:
            model.wait_ready()
        except Exception as error:
            failures[name] = error
    return failures


def _several(failures: dict[str, BaseException], count: int) -> LoadError:
    texts = [f"{name!r}: {type(error).__name__}: {error}" for name, error in failures.items()]
    indented = "\n".join("    " + line for text in texts for line in text.splitlines())
    return LoadError(
        f"{len(failures)} of {count} models could not be loaded, and the others were closed:\n{indented}",
        stage="several",
        failures=failures,
    )


def _close(models: list[Model], drain: bool = False, timeout: float | None = None) -> None:
    """Close models side by side: each gives its worker a moment to leave."""
    side_by_side(lambda model: model.close(drain, timeout), models, "opexec-closing")
