"""One worker process: start it, shake hands, notice its end, end it."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from .. import workers
from ..errors import BuildError, CallTimeout, LoadError, WorkerDied
from ..files import caches
from ..ipc import faults
from ..ipc.control import Control
from ..workers import handshake
from . import leaving, stack
from .child import Child
from .limits import Limits
from .sandbox import Confinement

#: Seconds a worker has for its handshake, at most: it starts Python and imports numpy, maybe from a cold disk.
HANDSHAKE_S = 60.0

_MAIN = Path(workers.__file__).with_name("__main__.py")

# A process that has closed its socket is about to end; one that does not is killed after this long.
_EXIT_S = 1.0
_SAY_BYE_S = 0.5
# Killed workers end at once. One that waits in the kernel for a device must not keep the interpreter from its exit.
_LEAVE_S = 1.0
_LOOK_AGAIN_MS = 1000

_DOING = {
    "spawn": "starting",
    "handshake": "shaking hands",
    "load": "loading its model",
    "call": "running a call",
    "idle": "idle",
}


class WorkerProcess:
    """A child process in a session of its own that runs `opexec.workers` in some interpreter.

    Attributes:
        name: for messages and logs.
        interpreter: the path that was executed.
        pid: its process id, also that of its process group and session; of a sandboxed worker, past the handshake, that of the worker
            itself, whose group and session are bubblewrap's.
        pidfd: readable once it has died; open as long as this object lives.
        control: the control socket, past the handshake.
        hello: what it said of itself: versions of Python, numpy and msgpack, implementation, executable.
        limited_by: what holds it to its memory limit: ``"RLIMIT_DATA"``, and the folder of its control group where it has one.

    Methods may be called from any thread. In a forked copy of the caller they leave the worker alone: it is the parent's.
    """

    def __init__(self, name: str, interpreter: str, child: Child, control: Control) -> None:
        self.name = name
        self.interpreter = interpreter
        self.pid = child.pid
        self.pidfd = child.pidfd
        self.control = control
        self.hello: dict[str, Any] = {}
        self.limited_by: tuple[str, ...] = child.limited_by
        self._child = child
        self._closing = threading.RLock()
        #: Where it stood when it was asked.
        self._stood: tuple[str, ...] = ()
        # Runs when this object is garbage. Not at the interpreter's exit, where daemon threads may still wait for answers and would
        # complain: the worker goes with the process.
        weakref.finalize(self, _forget, child, control).atexit = False
        _workers.add(self)

    @classmethod
    def start(
        cls,
        interpreter: str | os.PathLike[str],
        name: str,
        *,
        overlay: str | os.PathLike[str] | None = None,
        env_vars: Mapping[str, str | None] | None = None,
        cpus: Collection[int] | None = None,
        limits: Limits | None = None,
        cwd: str | None = None,
        confinement: Confinement | None = None,
        started: Callable[[WorkerProcess], None] | None = None,
        deadline: float | None = None,
    ) -> WorkerProcess:
        """Start a worker and shake hands with it.

        `overlay` is a folder for the end of its module search path; `env_vars` are set (None: unset) over the caller's environment
        without what belongs to the caller's Python; `cpus` are the cores it may run on; `limits`, what else it may have (by default no core
        dumps); `cwd`, its working directory (the caller's, if None); `confinement`, the sandbox that it runs in; `started` is called before the handshake, with
        what can be killed if it takes too long; `deadline`, by `time.monotonic`, is when it must have shaken hands, if that is before HANDSHAKE_S.

        Raises:
            LoadError: stage ``"spawn"``: the interpreter cannot be executed, or ended before the handshake; stage ``"handshake"``: it
                lacks something, does not fit the caller, or did not answer in time.
            WorkerDied: a signal ended it before the handshake.
            ValueError: it cannot have the cores.
        """
        latest = time.monotonic() + HANDSHAKE_S
        deadline = latest if deadline is None else min(deadline, latest)
        path = os.fspath(interpreter)
        limits = Limits() if limits is None else limits
        mine, theirs = socket.socketpair()
        with theirs:
            control = Control(mine)
            try:
                # Before the worker exists: the handshake then takes one message of the worker, and no waiting on its side.
                hello = handshake.hello(np.__version__)
                control.send(hello)
                # Without bytecode: it would be written beside what is imported, in an environment that is the user's.
                argv: list[Any] = [
                    path,
                    "-I",
                    "-B",
                    _MAIN,
                    "--control",
                    str(theirs.fileno()),
                    "--parent",
                    # In a sandbox, the first process of its namespace starts the worker.
                    str(os.getpid() if confinement is None else 1),
                ]
                # In a sandbox its parent would not reap the keeper before it is done itself.
                if confinement is None:
                    argv += ["--keeper", "yes"]
                if limits.message():
                    argv += ["--limits", limits.message()]
                if overlay is not None:
                    argv += ["--overlay", overlay]
                with contextlib.suppress(
                    BuildError
                ):  # a cache folder that cannot be written: workers start more slowly
                    argv += ["--bytecode", caches.folder("bytecode")]
                environment = _environment(env_vars)
                if confinement is not None:
                    for variable in confinement.hidden_variables.difference(env_vars or ()):
                        environment.pop(variable, None)
                    argv = confinement.command(argv, environment)
                child = Child.start(
                    argv, name, [theirs.fileno()], environment, cpus, limits, cwd, confinement is not None
                )
            except BaseException as error:
                control.close()
                if isinstance(error, OSError):
                    raise LoadError(_cannot_start(path, error), stage="spawn") from error
                raise
        worker = cls(name, path, child, control)
        try:
            if started is not None:
                started(worker)
            worker._shake_hands(hello, deadline)
        except BaseException:
            worker.close(grace=0)
            raise
        return worker

    def _shake_hands(self, mine: dict[str, Any], deadline: float) -> None:
        began = time.monotonic()
        try:
            theirs, fds = self.receive(deadline)
            for fd in fds:
                os.close(fd)
            if theirs["type"] == "refused":
                against = theirs.get("reason"), theirs.get("cure")
            else:
                against = handshake.disagreement(mine, theirs)
        except CallTimeout:
            self.ask_where()
            raise LoadError(
                f"{self._who()} did not say hello within {time.monotonic() - began:.1f} s; it has {HANDSHAKE_S:g} s for that, or `load_timeout` where that "
                f"is shorter. Is it a Python interpreter, and is its disk very slow{self._child.limits.hint()}?{self._said()}{self._stands()}",
                stage="handshake",
            ) from None
        except faults.PeerGone:
            died = self.death("spawn")
            if died.signal is not None:
                raise died from None
            raise LoadError(
                f"expected {self.interpreter} to be a Python interpreter >= 3.7 that runs opexec's worker; it exited with code "
                f"{died.exit_code} before it said hello{self._child.limits.hint()}.{self._said()}",
                stage="spawn",
            ) from None
        except faults.ProtocolError as error:
            raise LoadError(
                f"{self._who()} did not speak opexec's protocol: {error}", stage="handshake"
            ) from None
        if against is not None:
            reason, cure = against
            raise LoadError(
                f"{self._who()} cannot serve: {reason}. To do: {cure}{self._child.limits.hint()}.",
                stage="handshake",
            )
        self.hello = theirs
        if self._child.sandboxed:
            self.pid = _innermost(self.pid)

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next control message and its descriptors, of a worker that died too.

        Raises faults.PeerGone once a dead worker's last message has been received, faults.ProtocolError, or CallTimeout past `deadline`.
        """
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        died = False
        while True:
            with contextlib.suppress(TimeoutError):
                return self.control.receive(timeout=0)
            if died:
                raise faults.PeerGone(f"{self._who()} has died")
            left_ms = _LOOK_AGAIN_MS
            if deadline is not None:
                left_ms = min(left_ms, int((deadline - time.monotonic()) * 1000) + 1)
                if left_ms <= 0:
                    raise CallTimeout(f"{self._who()} did not answer within its deadline")
            # Then what it sent before it died is in the socket.
            died = any(fd == self.pidfd for fd, _ in poll.poll(left_ms))

    @property
    def is_copy(self) -> bool:
        """Whether this process is a forked copy of the one that started the worker."""
        return self._child.is_copy()

    @property
    def alive(self) -> bool:
        """Whether the process has not ended; one that was stopped, or is busy, is alive."""
        return not self._child.wait(0)

    def tail(self, stream: str = "stderr") -> tuple[str, ...]:
        """The last lines it printed to ``"stderr"`` or ``"stdout"``."""
        return self._child.logs.tail(stream)

    def ask_where(self) -> None:
        """Have it tell where it stands, for the error that `death` will give: before it is killed because it hangs. Takes half a second at most."""
        if not self.is_copy:
            self._stood = stack.ask(self.pid, self._child.logs)

    def kill(self) -> None:
        """Kill it and every process of its group now."""
        self._child.kill()

    def death(self, stage: str, why: str = "") -> WorkerDied:
        """Why it died while `stage` (see WorkerDied); `why` it was killed, if it was killed on purpose.

        Kills it if it lives on without its control socket. Somebody waits for this: `close`, which must follow, does what may take longer, and
        takes its children along.
        """
        leaving.hold()
        exited = self._child.wait(_EXIT_S)
        if exited:
            self._child.look()
        else:
            self._child.conclude()
        how = self._child.how if exited else f"closed its connection, did not exit and {self._child.how}"
        hint = ""
        if exited and not self._child.killed:
            if self._child.signal == "SIGKILL":
                hint = f"; {self._child.oom_kills.account()}"
            if self._child.signal != "SIGKILL" or self._child.has_group:
                hint += self._child.limits.hint()
        return WorkerDied(
            f"{self._who()} {how} while {_DOING[stage]}{f': {why}' if why else ''}{hint}{self._said()}{self._stands()}",
            pid=self.pid,
            exit_code=self._child.exit_code,
            signal=self._child.signal,
            stderr=(*self.tail(), *self._stood),
            stage=stage,
        )

    def close(self, grace: float = 5.0) -> None:
        """Ask it to leave, and kill it and its children if it has not left after `grace` seconds. Idempotent."""
        if self._child.is_copy():
            return
        with self._closing:
            if grace > 0 and self.alive:
                with contextlib.suppress(faults.PeerGone, TimeoutError):
                    self.control.send({"type": "bye"}, timeout=min(grace, _SAY_BYE_S))
                    self._child.wait(grace)
            self._child.end()
            self.control.close()

    def _who(self) -> str:
        return f"worker {self.name!r} (pid {self.pid}, {self.interpreter})"

    def _said(self) -> str:
        for stream, text in (("stderr", "standard error"), ("stdout", "standard output")):
            lines = self.tail(stream)
            if lines:
                return f"\nThe last lines of its {text}:\n" + "\n".join(f"    {line}" for line in lines)
        return ""

    def _stands(self) -> str:
        if not self._stood:
            return ""
        return "\nWhere it stood (most recent call first; the log has its other threads):\n" + "\n".join(
            f"    {line}" for line in self._stood
        )

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.name!r} pid {self.pid}, {'alive' if self.alive else 'dead'}>"


def _forget(child: Child, control: Control) -> None:
    child.forget()
    control.close()


_workers: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


@atexit.register
def _leave() -> None:
    """At the interpreter's exit: the workers are killed and reaped, and all descriptors stay open, at which daemon threads may sleep."""
    leaving.begin()
    own = [worker for worker in list(_workers) if not worker.is_copy]
    for worker in own:
        worker.kill()
    give_up = time.monotonic() + _LEAVE_S
    for worker in own:
        worker._child.leave(max(give_up - time.monotonic(), 0.0))
    for worker in list(_workers):
        worker.control.leave()


#: What names the caller's own environment, and what a service manager gave to the caller alone: a model that took these up would report
#: itself as the service, or take its sockets.
_OF_THE_CALLER = frozenset(
    (
        *("VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"),
        *("CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_PROMPT_MODIFIER", "CONDA_SHLVL"),
        *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
    )
)


def _environment(env_vars: Mapping[str, str | None] | None) -> dict[str, str]:
    """The caller's environment for a worker: without what was meant for the caller's Python, which the model's children would take up."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in _OF_THE_CALLER
    }
    for name, given in (env_vars or {}).items():
        if given is None:
            environment.pop(name, None)
        else:
            environment[name] = given
    return environment


def _innermost(pid: int) -> int:
    """The worker that a process of bubblewrap's has started, by way of the first process of its namespace."""
    with contextlib.suppress(psutil.Error, ValueError):  # it has ended meanwhile
        process = psutil.Process(pid)
        for _ in range(2):
            (process,) = process.children()
        return int(process.pid)
    return pid


def _cannot_start(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and not os.path.lexists(path):
        return f"expected a Python interpreter at {path}; there is no such file. Check the path."
    if error.filename is not None or isinstance(error, (FileNotFoundError, PermissionError)):
        return (
            f"expected a Python interpreter at {path}; it cannot be executed: {error.strerror}. Check that it is a program for this "
            "machine, that its permissions allow running it, and that what its first line or its link names exists."
        )
    return f"cannot start a worker: {error.strerror or error}"
