"""Child: a process with its group, its limits, its end and what it prints. Knows no protocol."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Collection
from typing import Any

from ..errors import OpexecError
from ..machine.memory_group import MemoryGroup
from ..machine.oom import OomKills
from . import sandbox, spawner
from .lifeline import Lifeline
from .limits import Limits
from .logs import WorkerLogs

_logger = logging.getLogger("opexec.limits")

# SIGKILL takes effect at once, except on a process that waits in the kernel for a device.
_KILL_S = 5.0
# What is in its pipes is read at once; this is for children of it that go on printing.
_DRAIN_S = 0.05
# How long its keeper may outlive it; it has ended long before, unless it waits in the kernel for a device.
_ALONE_S = 0.05
# Between two looks whether its keeper has ended, in seconds.
_LOOK_AGAIN_S = 0.001


class Child:
    """Attributes: `exit_code`, `signal` and `how` once `end` was called; `killed`, whether this side did it; `limited_by`."""

    def __init__(
        self, pid: int, logs: WorkerLogs, limits: Limits, group: MemoryGroup | None, sandboxed: bool
    ) -> None:
        self.pid = pid
        self.logs = logs
        self.limits = limits
        self.sandboxed = sandboxed
        self.oom_kills = OomKills(None if group is None else group.folder)
        self.exit_code: int | None = None
        self.signal: str | None = None
        self.how = "is still there"
        self.killed = False
        self._owner = os.getpid()
        self._reaped = False
        self._cleared = False
        self._group = group
        self._ending = threading.RLock()
        self.pidfd = os.pidfd_open(pid)
        try:
            self._lifeline = Lifeline(pid)
        except BaseException:
            os.close(self.pidfd)
            raise

    @classmethod
    def start(
        cls,
        argv: list[Any],
        name: str,
        fds: list[int],
        environment: dict[str, str],
        cpus: Collection[int] | None,
        limits: Limits,
        cwd: str | None,
        sandboxed: bool,
    ) -> Child:
        logs = WorkerLogs(name)
        group = None
        try:
            group = _memory_group(limits, name)
            if group is not None:
                argv = group.joining([os.fspath(word) for word in argv])
            stdout, stderr = logs.writers
            process = spawner.spawn(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=fds,
                env=environment,
                cwd=cwd,
                start_new_session=True,
                cpus=cpus,
            )
            try:
                child = cls(process.pid, logs, limits, group, sandboxed)
            except BaseException:
                process.kill()
                process.wait()
                raise
            process.returncode = 0  # Popen must not wait for it: from here on it is the child's own doing
            try:
                logs.started(process.pid)
            except BaseException:
                child.forget()
                raise
            return child
        except BaseException:
            logs.close()
            if group is not None:
                group.remove()
            raise

    @property
    def has_group(self) -> bool:
        """Whether it has a control group of its own."""
        return self._group is not None

    @property
    def limited_by(self) -> tuple[str, ...]:
        if self.limits.memory is None:
            return ()
        return ("RLIMIT_DATA",) if self._group is None else ("RLIMIT_DATA", str(self._group.folder))

    def is_copy(self) -> bool:
        """Whether this is a forked copy of the process that started it."""
        return self._owner != os.getpid()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, waiting up to `seconds` for that."""
        if self._reaped:
            return True
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self.is_copy():
            return
        with self._ending:
            lives = not self.wait(0)
            self.killed = self.killed or lives
            # As long as its leader is not reaped, the group's number cannot be another group's.
            if not self._reaped and self._is_ours():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if lives:  # first and alone: its keeper, killed at the same time, would leave it the memory to take down
                        os.kill(self.pid, signal.SIGKILL)
                        self.wait(_ALONE_S)
                    os.killpg(self.pid, signal.SIGKILL)
            self._lifeline.cut()

    def look(self) -> None:
        """Learn how it ended, if it has, and read what it printed last. Kills nothing: what is left of the group goes with `end`, which must follow."""
        self._check_owner()
        with self._ending:
            if not self._reaped:
                self._note(os.WNOWAIT)
                self.logs.drain(_DRAIN_S)

    def conclude(self) -> None:
        """Kill what is left of the group, reap the process, and read what it printed last. Idempotent; quick where it has ended."""
        self._check_owner()
        with self._ending:
            if self._reaped:
                return
            self.kill()
            if self.wait(_KILL_S):
                self._reap()
            self.logs.drain(_DRAIN_S)

    def end(self) -> None:
        """`conclude`, and clear away what was its own. Idempotent; bounded in time."""
        self.conclude()
        with self._ending:
            if not self._cleared:
                self._cleared = True
                if self._reaped:
                    self._reap_keeper(_KILL_S)
                if self._group is not None:
                    self._group.remove()
                self.logs.close()

    def leave(self, seconds: float) -> None:
        """At the interpreter's exit, once killed: reap it within `seconds`. Threads may still wait at its descriptors."""
        until = time.monotonic() + seconds
        if self._ending.acquire(timeout=seconds):
            try:
                if not self._reaped and self.wait(seconds):
                    self._reap()
                if self._reaped:
                    self._reap_keeper(until - time.monotonic())
                if self._group is not None and not self._cleared:
                    self._cleared = True
                    self._group.remove()
            finally:
                self._ending.release()

    def _is_ours(self) -> bool:
        """False if somebody else's wait, or an ignored SIGCHLD, has taken the process's status."""
        try:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return False
        return True

    def _check_owner(self) -> None:
        if self.is_copy():
            raise OpexecError(
                f"this worker belongs to process {self._owner}, of which this one is a forked copy"
            )

    def _reap(self) -> None:
        self._reaped = self._note(0)

    def _note(self, leave: int) -> bool:
        """Note how it ended; False if it has not. `leave`: WNOWAIT leaves its status, and so its number, to a later wait."""
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | leave)
        except ChildProcessError:
            self.how = "ended (its status was taken by another wait in this process)"
            return True
        if result is None:
            return False
        exit_code: int | None = result.si_status
        number: int | None = None
        if result.si_code != os.CLD_EXITED:
            exit_code, number = None, result.si_status
        elif self.sandboxed:
            exit_code, number = sandbox.ended(result.si_status)
        self.exit_code = exit_code
        if number is None:
            self.how = f"exited with code {exit_code}"
        else:
            self.signal = _signal_name(number)
            self.how = f"was killed by {self.signal}"
        return True

    def _reap_keeper(self, seconds: float) -> None:
        """Once it is reaped itself: the child of this process that is left in its group (`opexec.workers.keeper`), and has been killed with it.

        Its memory has been taken down then.
        """
        until = time.monotonic() + seconds
        while not self.sandboxed and time.monotonic() < until:
            try:
                ended = os.waitid(os.P_PGID, self.pid, os.WEXITED | os.WNOHANG)
            except ChildProcessError:  # there is none, or none any more
                return
            if ended is None:
                time.sleep(_LOOK_AGAIN_S)

    def forget(self) -> None:
        """Nobody will use this object any more."""
        if self.is_copy():
            return
        self.end()
        os.close(self.pidfd)
        self.pidfd = -1


def _memory_group(limits: Limits, name: str) -> MemoryGroup | None:
    """A control group for a worker with a memory limit, where this user may make one; the log says which there is."""
    if limits.memory is None:
        return None
    try:
        group = MemoryGroup(limits.memory)
    except OSError as error:
        _logger.info("%s: memory is limited by RLIMIT_DATA alone, without a control group: %s", name, error)
        return None
    _logger.info("%s: memory is limited by RLIMIT_DATA and by the control group %s", name, group.folder)
    return group


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
