"""Metrics over HTTP, for Prometheus to scrape: prometheus-client's own server, in a daemon thread."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import OpexecError

if TYPE_CHECKING:
    from ..model import Model
    from ..supervisor import Supervisor

_servers: weakref.WeakSet[MetricsServer] = weakref.WeakSet()


def serve(
    models: Mapping[str, Model] | Supervisor | Callable[[], Mapping[str, Model]],
    port: int = 0,
    host: str = "127.0.0.1",
) -> MetricsServer:
    """Serve the metrics of `models` at ``http://host:port/metrics``, in the text formats of Prometheus and OpenMetrics, until it is closed.

    `models` are looked at when a scrape comes: a mapping by name, a supervisor, or a function that returns such a mapping. Port 0 is any
    free one: see `MetricsServer.port`. Only this machine can reach it, unless another `host` is given; there is no password.

    Raises OSError where the port is taken, and OpexecError without the package prometheus-client (``pip install 'opexec[metrics]'``).
    """
    return MetricsServer(_looker(models), port, host)


class MetricsServer:
    """A running endpoint, made by `serve`. A context manager; `close` ends it."""

    def __init__(self, models: Callable[[], Mapping[str, Model]], port: int, host: str) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server

            from .prometheus import ModelCollector
        except ImportError as error:
            raise OpexecError(
                f"metrics are served by the package prometheus-client, which cannot be imported ({error}). To do: pip install "
                "'opexec[metrics]'"
            ) from error
        registry = CollectorRegistry()
        registry.register(ModelCollector(models))
        self._server: Any
        self._server, self._thread = start_http_server(port, host, registry)
        self._owner = os.getpid()
        #: Where it listens.
        self.host, self.port = self._server.server_address[:2]
        _servers.add(self)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._owner != os.getpid():  # a forked copy has no thread to stop
            self._server.socket.close()
            return
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MetricsServer {self.url}>"


def _looker(
    models: Mapping[str, Model] | Supervisor | Callable[[], Mapping[str, Model]],
) -> Callable[[], Mapping[str, Model]]:
    if callable(models):
        return models
    if isinstance(models, Mapping):
        return lambda: models
    if hasattr(models, "models"):
        return lambda: models.models
    raise TypeError(
        f"the models are a {type(models).__name__}; expected a mapping from names to models, a Supervisor, or a function that returns such "
        "a mapping"
    )


def _after_fork_in_child() -> None:
    """A copy must not keep the port."""
    for server in list(_servers):
        server._server.socket.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
