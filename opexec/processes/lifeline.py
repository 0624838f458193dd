"""What makes a worker and its children end with their caller, however the caller ends.

A lifeline is a pipe whose writing end only this process holds. When that end is closed, by `cut` or by the kernel because this process has
died, the kernel sends SIGKILL to the worker's whole process group: the reading end is set to deliver its readiness as a signal
(F_SETSIG, F_SETOWN and O_ASYNC in fcntl(2)). No code of the worker takes part, so a model that holds the GIL, a child that the
model started and a worker that is itself dead already make no difference. F_SETOWN keeps the group itself and not its number:
a recycled number is never hit.

The reading end must outlive the writing end, though both go with this process. So it lies in the queue of a socket, and the kernel
releases what is in the queue of a released socket after everything else that a dying process had open. (A worker that held the
reading end would lose it to the parent-death signal, which comes when one *thread* of this process ends: with another thread still busy
in the kernel, 5 of 16 killed callers left children of the worker behind.)

A process forked from this one closes its copies at once. A fork that bypasses Python's hooks and runs no other program keeps the writing
end open; then it is the worker's own parent-death signal (`opexec.workers.lifeline`) that ends the worker.
"""

from __future__ import annotations

import array
import fcntl
import os
import signal
import socket


class Lifeline:
    """Ties the life of process group `group` (whose leader this process must not have reaped) to that of this process."""

    def __init__(self, group: int) -> None:
        reader, writer = os.pipe()
        try:
            fcntl.fcntl(reader, fcntl.F_SETOWN, -group)
            fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
            # Higher than the writing end, should a kernel release what a process had open one by one in this order.
            keeper = _keep(reader, above=writer)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        self._fds = (writer, keeper)
        _lifelines.add(self)

    def cut(self) -> None:
        """Kill every process of the group. Idempotent; does nothing in a forked copy of the process."""
        _lifelines.discard(self)
        self._close()

    def _close(self) -> None:
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    _fds: tuple[int, ...] = ()


def _keep(fd: int, above: int) -> int:
    """A descriptor greater than `above` of a socket whose queue holds `fd`."""
    sender, receiver = socket.socketpair()
    with sender, receiver:
        rights = array.array("i", [fd])
        sender.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        return fcntl.fcntl(receiver, fcntl.F_DUPFD_CLOEXEC, above + 1)


_lifelines: set[Lifeline] = set()


def _after_fork_in_child() -> None:
    while _lifelines:
        _lifelines.pop()._close()


os.register_at_fork(after_in_child=_after_fork_in_child)
