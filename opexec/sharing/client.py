"""`attach`: a `Model` whose worker belongs to another process of this user."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..batching.model import BatchedModel
from ..batching.policy import BatchPolicy
from ..errors import CallTimeout, LoadError, OpexecError, WorkerDied
from ..ipc.control import Control
from ..isolated import IsolatedModel
from ..loading.launch import Launch, merged
from ..loading.request import Specs, check_timeout, check_wait
from ..memory import parse_size
from ..processes.worker import WorkerProcess
from ..supervision.policies import RestartPolicy, Supervision
from .attached import AttachedProcess, NotLetIn, refusal
from .visit import Visit

if TYPE_CHECKING:
    from ..model import Model
    from .shared import Share


#: When the worker is gone: the owner is asked at once, and where that has gone too, for this long, in case it is only being replaced.
_ATTACH_AGAIN = RestartPolicy(max_restarts=6, window=20.0, backoff=0.1, max_backoff=0.5, jitter=0.0)


def attach(
    name: str,
    *,
    timeout: float | None = None,
    wait: str = "adaptive",
    check: bool = True,
    shm_limit: int | str | None = None,
    retries: int = 0,
    while_restarting: str = "wait",
    attach_timeout: float | None = 30.0,
) -> Model:
    """A model that another process of this user shares (`Model.share`, `Supervisor.share`, ``opexec up``); called like one of one's own.

    Calls go straight to the model's worker, over memory of this process alone. The worker does one call after the other, whoever they are
    from. If it dies, or its owner replaces it, calls in flight fail with WorkerDied, and later ones wait until this process is attached to
    the new one; if the owner has gone, they raise LoadError, until a model is shared under the name again.

    Of a model with a `BatchPolicy` the calls that this process makes at the same time are joined with each other (not with those of other
    processes), unless ``check=False``.

    `timeout`, `wait`, `check`, `shm_limit`, `retries`, `while_restarting`: as for `opexec.load`, and for this process's calls alone.
    `attach_timeout`: seconds to wait for the owner, and for a worker that is busy with a call; None for any time.

    `close` leaves; `restart` attaches anew, and the worker stays as it is. `stats` counts the calls of this process.

    Raises LoadError (stage ``"attach"``): nobody shares that name, or the owner refuses; CallTimeout; ValueError for a name that none can have.
    """
    check_timeout(timeout)
    check_timeout(attach_timeout, "attach_timeout")
    check_wait(wait)
    supervision = Supervision(
        restart=_ATTACH_AGAIN,
        retries=retries,
        while_restarting=while_restarting,
        grace=None,
        load_timeout=None,  # a worker that is at a long call lets nobody in meanwhile
    )
    deadline = None if attach_timeout is None else time.monotonic() + attach_timeout
    while True:
        try:
            return _attached(name, deadline, attach_timeout, timeout, wait, check, shm_limit, supervision)
        except WorkerDied as error:
            # One that died as it was to let this process in: its owner tells of the next one, or that there will be none.
            if isinstance(error, NotLetIn) or (deadline is not None and time.monotonic() >= deadline):
                raise LoadError(str(error), stage="attach") from None


def _attached(
    name: str,
    deadline: float | None,
    attach_timeout: float | None,
    timeout: float | None,
    wait: str,
    check: bool,
    shm_limit: int | str | None,
    supervision: Supervision,
) -> Model:
    """`attach`, to the worker that there is. Raises WorkerDied if that dies meanwhile, or does not let this process in."""
    visit = Visit.open(name, deadline)
    try:
        told = visit.describe(10.0 if deadline is None else max(deadline - time.monotonic(), 0.001))
        attached = AttachedModel(
            visit,
            str(told.get("platform")),
            timeout=timeout,
            wait=wait,
            check=check,
            shm_limit=None if shm_limit is None else parse_size(shm_limit),
            supervision=supervision,
        )
    except BaseException:
        visit.close()
        raise
    model: Model = attached
    if told.get("batch") is not None and check:
        model = BatchedModel(attached, BatchPolicy(**told["batch"]), supervision, timeout)
    try:
        model.wait_ready(None if deadline is None else max(deadline - time.monotonic(), 0.001))
    except BaseException as error:
        model.close()
        if isinstance(error, CallTimeout):
            raise CallTimeout(
                f"the worker of the shared model {name!r} did not let this process in within {attach_timeout} s; it is busy with a call, "
                "or stopped. Raise attach_timeout"
            ) from None
        raise
    return model


class AttachedModel(IsolatedModel):
    """See `attach`."""

    def __init__(
        self,
        visit: Visit,
        platform: str,
        *,
        timeout: float | None,
        wait: str,
        check: bool,
        shm_limit: int | None,
        supervision: Supervision,
    ) -> None:
        self._introduction = _Introduction(visit)
        super().__init__(
            name=visit.name,
            platform=platform,
            launch=cast(Launch, self._introduction),
            check=check,
            timeout=timeout,
            wait=wait,
            shm_limit=shm_limit,
            supervision=supervision,
            background=True,
        )

    def swap(self, source: str | os.PathLike[str], *, wait: bool = True, **arguments: Any) -> None:
        raise OpexecError(f"model {self.name!r} belongs to another process, which alone can swap it")

    def share_as(
        self, name: str | None, shown: Model | None = None, batch: BatchPolicy | None = None
    ) -> Share:
        raise OpexecError(f"model {self.name!r} belongs to another process, which alone can share it")

    def close(self, drain: bool = False, timeout: float | None = None) -> None:
        if not drain:  # before anything else: somebody may be waiting for the owner
            self._introduction.close()
        super().close(drain, timeout)
        self._introduction.close()


class _Introduction:
    """How to come to a worker of the owner's; in the place of `launch.Launch`, which starts one."""

    def __init__(self, visit: Visit) -> None:
        self.message: dict[str, Any] = {}
        self._visit = visit
        self._told: dict[str, Any] = {}
        self._closed = False

    def start(self, started: Callable[[WorkerProcess], None], load_timeout: float | None) -> WorkerProcess:
        try:
            told, sock, pidfd = self._visit.introduce()
        except LoadError:
            self._visit.close()
            if self._closed:
                raise
            # That owner has gone, or gives this model up. Is there another?
            self._visit = Visit.open(self._visit.name)
            told, sock, pidfd = self._visit.introduce()
        process = cast(WorkerProcess, AttachedProcess(self._visit.name, told, Control(sock), pidfd))
        self._told = told
        started(process)
        return process

    def turn(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def read(self, reply: dict[str, Any]) -> Specs:
        """The specs as the owner has them, who may have given others than the model's own. Raises LoadError for a refusal."""
        if reply["type"] == "failed":
            raise LoadError(
                f"the worker of the shared model {self._visit.name!r} does not let this process in: {refusal(reply)}",
                stage="attach",
            )
        return merged((None, None), self._told["inputs"], self._told["outputs"])

    def loaded(self, reply: dict[str, Any], process: WorkerProcess) -> None: ...

    def failed(self, error: BaseException) -> None: ...

    def close(self) -> None:
        self._closed = True
        self._visit.close()
