"""One of the other processes that a worker serves: its control socket, what it may send there, and how it leaves."""

from __future__ import annotations

import os
import socket

from opexec.ipc.channel import close_all
from opexec.ipc.control import Control
from opexec.ipc.faults import PeerGone, ProtocolError
from opexec.workers.guest import Guest
from opexec.workers.loop import refusal

_MESSAGES_AT_ONCE = 64
#: A client whose control socket takes nothing for so long, in seconds, is cut off.
_SEND_S = 1.0


class Client:
    """Its control socket, its pidfd and, once it has sent its channel, the `guest` that is served over that."""

    def __init__(self, fd, pidfd):
        self.control = _ImpatientControl(socket.socket(fileno=fd))
        self.pidfd = pidfd
        self.guest = None

    def listens(self):
        """Whether a record of it would be handled now."""
        return self.guest is not None and not self.guest.aside and not self.is_full()

    def is_full(self):
        """Whether it has left so many answers in the ring that there is no room for another."""
        try:
            return self.guest is not None and not self.guest.channel.producer.room()
        except ProtocolError:
            return False  # its next answer finds out, where that is this client's end alone

    def step(self):
        """Handle its next record; None if there is none, or not to be handled now."""
        guest = self.guest
        return guest.step() if guest is not None and self.listens() else None

    def hear(self, model, tally):
        """Handle control messages, but not so many that others would wait."""
        for _ in range(_MESSAGES_AT_ONCE):
            first = self.control.first()
            if first is None:
                return
            message, fds = first
            self.control.drop_first()
            if self.guest is not None:
                self.guest.channel.handle(message, fds)
            elif message["type"] == "channel":
                _check_bells(fds)
                try:
                    self.guest = Guest(self.control, message, fds, model, tally)
                except BaseException:
                    close_all(fds[1:])  # the first was the segment's, and is closed
                    raise
            else:
                close_all(fds)
                raise ProtocolError("expected a 'channel' message, received {!r}".format(message["type"]))

    def leave(self, why):
        """Let go of everything that is this client's."""
        if why is not None:
            try:
                # Until it is let in, it waits for an answer to its load.
                let_in = self.guest is not None and self.guest.let_in
                self.control.send({"type": "broken", "why": why} if let_in else refusal(why), timeout=0)
            except (PeerGone, TimeoutError, OSError):
                pass
        self.control.close()
        os.close(self.pidfd)
        guest, self.guest = self.guest, None
        if guest is not None:
            guest.leave()


class _ImpatientControl(Control):
    """Does not wait long for a client that does not read. Raises TimeoutError then."""

    def send(self, message, fds=(), timeout=_SEND_S):
        super().send(message, fds, timeout)


def _check_bells(fds):
    """The descriptors of a ``channel`` message. Raises ProtocolError unless ringing the bells is sure not to block."""
    try:
        if len(fds) != 3:
            raise ProtocolError("a channel comes with {} descriptors; expected 3".format(len(fds)))
        for fd in fds[1:]:
            if os.readlink("/proc/self/fd/{}".format(fd)) != "anon_inode:[eventfd]":
                raise ProtocolError("expected a client's bells to be eventfds")
            os.set_blocking(fd, False)
    except BaseException:
        close_all(fds)
        raise
