"""A model that is shared: how another process gets to its worker, and what is told of it."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
from typing import TYPE_CHECKING, Any

import psutil

from .. import states
from ..errors import OpexecError
from ..ipc import faults
from ..isolated import IsolatedModel
from ..metrics import snapshot
from ..spec import InputSpecs
from . import places
from .listener import Listener
from .tally import Tallies

if TYPE_CHECKING:
    from ..batching.policy import BatchPolicy
    from ..model import Model
    from ..spec import TensorSpec


class NotNow(Exception):
    """There is no worker at the moment; one is expected."""


class Share:
    """A model under a name that other processes of this user can attach to. A context manager; `close` ends it.

    It ends with the model, too. Clients that are attached when only the share ends keep their worker.
    """

    def __init__(
        self,
        model: Model,
        name: str | None = None,
        shown: Model | None = None,
        batch: BatchPolicy | None = None,
    ) -> None:
        """`shown`: the model that is told of, where the shared one is only what it calls; `batch`: how clients join their calls."""
        if not isinstance(model, IsolatedModel):
            raise OpexecError(
                f"model {model.name!r} runs in this process; only one in a worker can be shared"
            )
        self.name = places.check_name(model.name if name is None else name)
        self._model = model
        self._shown = model if shown is None else shown
        self._batch = batch
        self._tallies = Tallies.of(model)
        self._listener = Listener.open(self)
        model.shares.add(self)

    @property
    def path(self) -> str:
        """The socket's path."""
        return str(places.path_of(self.name))

    @property
    def clients(self) -> int:
        """How many processes are attached now (one that attached twice counts twice)."""
        return self._tallies.counts()[1]

    def close(self) -> None:
        """Let nobody in any more. Idempotent."""
        self._listener.remove(self)
        self._model.shares.discard(self)

    # What the listener asks

    def introduce(self, client: int) -> tuple[dict[str, Any], list[int]]:
        """Open a way from process `client` to a worker: what to tell the client, and the descriptors to send with that, which are the sender's to close.

        Raises NotNow, or OpexecError if there will be none.
        """
        model = self._model
        links = model.replicas.serving()
        if not links:
            raise self._none()
        link = min(links, key=lambda one: self._tallies.clients_of(one.connection))
        connection, process = link.connection, link.process
        theirs, workers = socket.socketpair()
        fds = [theirs.detach()]
        try:
            with workers:
                pidfd = os.pidfd_open(client)
                try:
                    tally = self._tallies.page(connection)
                    link.client_calls = functools.partial(self._tallies.calls_of, connection)
                    connection.let_in(workers.fileno(), pidfd, tally.fd)
                except (
                    faults.PeerGone,
                    TimeoutError,
                ) as error:  # nobody has seen that yet; there may be another one soon
                    raise NotNow(f"its worker, process {process.pid}, lets nobody in: {error}") from None
                finally:
                    os.close(pidfd)
            fds.append(os.dup(process.pidfd))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        told = {
            "type": "attached",
            "model": model.name,
            "platform": model.platform,
            "owner": os.getpid(),
            "pid": process.pid,
            "interpreter": str(process.interpreter),
            "python": process.hello["python"],
            "numpy": process.hello["numpy"],
            "inputs": _specs(model.inputs),
            "outputs": _specs(model.outputs),
        }
        return told, fds

    def describe(self) -> dict[str, Any]:
        """What `opexec ps` shows, as plain values. Times in seconds since 1970, memory in bytes.

        ``"state"``, ``"reason"`` and ``"since"`` are those of the worker that is worst off; ``"workers"`` has all of them.
        """
        model = self._model
        workers = model.workers
        first, worst = workers[0], min(workers, key=lambda one: states.badness(one.state))
        stats = self._shown.stats()
        calls, clients = self._tallies.counts()
        return {
            "name": self.name,
            "platform": model.platform,
            "state": worst.state,
            "reason": worst.reason,
            "since": worst.since,
            "workers": [
                {"pid": one.pid, "state": one.state, "reason": one.reason, "since": one.since}
                for one in workers
            ],
            "owner": os.getpid(),
            "pid": first.pid,
            "pids": [one.pid for one in workers if one.pid is not None],
            "python": first.python,
            "framework": first.framework,
            "framework_version": first.framework_version,
            "calls": stats.calls + calls,
            "memory": sum(_resident(one.pid) for one in workers),
            "clients": clients,
            "batch": None if self._batch is None else dataclasses.asdict(self._batch),
        }

    def stats(self) -> dict[str, Any]:
        """What `opexec top` shows: `metrics.snapshot.of` the model, with its clients and their calls."""
        calls, clients = self._tallies.counts()
        return {
            **snapshot.of(self._shown),
            "name": self.name,
            "clients": clients,
            "client_calls": calls,
        }

    def _none(self) -> Exception:
        """Why no worker can take a client."""
        # One that finishes its calls takes nobody.
        workers = [one for one in self._model.workers if one.state != "draining"]
        best = max(workers, key=lambda one: states.badness(one.state))
        if best.state in ("failed", "stopped") and not self._model.replicas.replacing.under_way:
            return OpexecError(
                f"it has no worker, and none is on its way: it is {best.state} ({best.reason})"
            )
        return NotNow(f"it is {best.state} ({best.reason})")

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Share {self.name!r} of model {self._model.name!r}>"


def _specs(specs: tuple[TensorSpec, ...] | None) -> list[dict[str, Any]] | None:
    if specs is None:
        return None
    optional = specs.optional if isinstance(specs, InputSpecs) else frozenset()
    return [
        {**spec.to_dict(), "optional": True} if spec.name in optional else spec.to_dict() for spec in specs
    ]


def _resident(pid: int | None) -> int:
    try:
        return 0 if pid is None else int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
