"""One place for a worker: the worker that has it, the state it is in and why, and how it gets its next worker."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from ..connection import Connection
from ..errors import LoadError, OpexecError
from ..ipc import faults
from ..ipc.packer import Packer
from ..loading.launch import Launch
from ..memory import SharedMemory
from ..model import WorkerInfo
from ..processes.worker import WorkerProcess
from .link import Link
from .policies import Crashes, RestartPolicy
from .watcher import Watch

#: A record for each change of a worker's state, whose `model`, `worker` (its pid, or None), `state` and `reason` are attributes of the record.
logger = logging.getLogger("opexec.supervisor")

_LEVELS = {"restarting": logging.WARNING, "failed": logging.ERROR}


class Replica:
    """One of the places. Its state is changed under the lock of the set that it belongs to, its worker under `replacing`."""

    def __init__(self, model: str, policy: RestartPolicy | None) -> None:
        self.link: Link | None = None
        #: The process that is on its way to be this place's worker.
        self.starting: WorkerProcess | None = None
        self.replacing = threading.RLock()
        #: Why the last worker ended, or could not be loaded.
        self.error: BaseException | None = None
        self.crashes = None if policy is None else Crashes(policy)
        self.restarts = 0
        #: The next start, where it is put off.
        self.timer: Watch | None = None
        self.state = "starting"
        self.reason = "load"
        self.since = time.time()
        self._model = model

    def enter(self, state: str, reason: str, level: int | None = None) -> None:
        """Be in `state` from now on, and log that; at `level`, by default the state's."""
        if state == self.state and reason == self.reason:
            return
        self.state, self.reason, self.since = state, reason, time.time()
        tell(self._model, self.pid, state, reason, level)

    @property
    def pid(self) -> int | None:
        process = self.starting or (None if self.link is None else self.link.process)
        return None if process is None else process.pid

    def stop_timer(self) -> None:
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()

    def connect(
        self,
        launch: Launch,
        packer: Packer,
        memory: SharedMemory,
        wait: str,
        load_timeout: float | None,
        closed: Callable[[], bool],
    ) -> Link:
        """Start a worker, have it load the model, and make ready for it what a call needs. Raises what `load` raises.

        `load_timeout`: the seconds that it has for that, once the process is there and it is its turn.
        """

        def started(process: WorkerProcess) -> None:
            self.starting = process
            if self.link is None:
                self.enter("loading", "the process has started")
            if closed():  # who closes may have looked before
                process.kill()

        connection = None
        process = launch.start(started, load_timeout)
        try:
            connection = Connection(process, packer, memory, wait)
            with launch.turn():
                deadline = None if load_timeout is None else time.monotonic() + load_timeout
                with _in_time(process, load_timeout):
                    loaded = connection.open(launch.message, deadline)
            specs = launch.read(loaded)
            plan = packer.last_plan
            if plan is not None:  # as a worker knows it that has served the last call
                with _in_time(process, load_timeout):
                    connection.channel.tell(plan, packer, deadline)
        except BaseException as error:
            if connection is not None:
                connection.close(OpexecError(f"the model could not be loaded: {error}"), grace=0)
            process.close(0)
            raise
        finally:
            self.starting = None
        launch.loaded(loaded, process)
        return Link(connection, loaded, specs)

    def info(self) -> WorkerInfo:
        """What the user is told of it."""
        link, state, reason, since = self.link, self.state, self.reason, self.since
        if self.starting is not None and state not in ("ready", "restarting"):
            return _info(None, self.starting, state, reason, since, self.restarts)
        if link is None or link.left:
            process = self.starting if link is None else link.process
            return _info(link, process, state, reason, since, self.restarts)
        if link.connection.dead is not None or not link.process.alive:  # and nobody has come to see to it yet
            state = "restarting" if self.crashes is not None else "stopped"
            return _info(link, link.process, state, "its process has ended", since, self.restarts)
        busy = link.busy_since()
        if busy is not None:
            state, reason, since = "busy", "calls are in flight", busy
        return _info(link, link.process, state, reason, since, self.restarts)


@contextlib.contextmanager
def _in_time(process: WorkerProcess, load_timeout: float | None) -> Iterator[None]:
    """What is waited for inside ends as `load` says it does: the worker is late, and is killed, or has died."""
    try:
        yield
    except TimeoutError:
        process.ask_where()
        process.kill()
        killed = process.death(
            "load",
            f"it took longer than load_timeout={load_timeout:g} s. If the model needs more, raise that",
        )
        raise LoadError(str(killed), stage="load") from None
    except faults.PeerGone:
        raise process.death("load") from None


def leaving_info(link: Link) -> WorkerInfo:
    """What the user is told of a worker whose place another one has."""
    return _info(link, link.process, "draining", "another worker has its place", link.since, 0)


def tell(model: str, pid: int | None, state: str, reason: str, level: int | None = None) -> None:
    """Log a change of a worker's state."""
    logger.log(
        _LEVELS.get(state, logging.INFO) if level is None else level,
        "model %r, worker %s: %s (%s)",
        model,
        "-" if pid is None else pid,
        state,
        reason.partition("\n")[0],
        extra={"model": model, "worker": pid, "state": state, "reason": reason},
    )


def _info(
    link: Link | None, process: WorkerProcess | None, state: str, reason: str, since: float, restarts: int
) -> WorkerInfo:
    hello = {} if process is None else process.hello
    return WorkerInfo(
        pid=None if process is None else process.pid,
        interpreter="" if process is None else str(process.interpreter),
        python=hello.get("python", ""),
        numpy=hello.get("numpy", ""),
        framework="" if link is None else link.framework,
        framework_version="" if link is None else link.version,
        state=state,
        reason=reason.partition("\n")[0],
        since=since,
        restarts=restarts,
        limited_by=() if process is None else process.limited_by,
    )
