"""The owner's door: one thread a process listens for everybody who asks for one of its shared models.

It never waits for a visitor. One that sends garbage, too much or nothing is shown out; another user's is turned away at once.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OpexecError
from ..ipc import faults
from ..ipc.channel import close_all
from ..ipc.control import Control
from ..workers import handshake
from . import places

if TYPE_CHECKING:
    from .shared import Share

_log = logging.getLogger("opexec.sharing")

#: Most visitors at a time that have not been let in yet, and how long each may take to say what it wants, in seconds.
_MOST_STRANGERS = 64
_STRANGER_S = 10.0
_SEND_S = 0.5
#: When no descriptor is left for a visitor, it waits this long, in seconds.
_BREATHE_S = 0.1


class Listener:
    """All shares of this process, and the thread that answers for them."""

    _lock = threading.Lock()
    _current: Listener | None = None

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._poke = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._poke, select.EPOLLIN)
        self._doors: dict[Share, _Door] = {}
        self._ready: dict[int, Callable[[], None]] = {}
        self._visitors: set[_Visitor] = set()
        self._thread = threading.Thread(target=self._run, name="opexec-sharing", daemon=True)

    @classmethod
    def open(cls, share: Share) -> Listener:
        """Listen for a share, too. Raises OpexecError if its name is taken."""
        with cls._lock:
            listening = places.listen(share.name)
            try:
                door = _Door(share, listening, places.inode(share.name))
                listener = cls._current or cls._started()
            except BaseException:
                with contextlib.suppress(OSError):
                    places.remove(share.name, places.inode(share.name))
                listening.close()
                raise
            listener._doors[share] = door
            listener._watch(listening.fileno(), lambda: listener._let_in(door))
            return listener

    @classmethod
    def _started(cls) -> Listener:
        cls._current = listener = cls()
        try:
            listener._thread.start()
        except BaseException:  # there can be no more threads: the next share tries again
            cls._current = None
            listener.close()
            raise
        return listener

    def remove(self, share: Share) -> None:
        """Listen for a share no more."""
        with Listener._lock:
            door = self._doors.pop(share, None)
            if door is None:
                return
            self._forget(door.socket.fileno())
            places.remove(share.name, door.inode)
            door.socket.close()
            if not self._doors:
                Listener._current = None
            os.eventfd_write(self._poke, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join(None if not self._doors else 0)

    def _watch(self, fd: int, action: Callable[[], None]) -> None:
        self._ready[fd] = action
        self._epoll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # In the thread

    def _run(self) -> None:
        while self._doors or Listener._current is self:
            for fd, _ in self._epoll.poll(self._patience()):
                action = self._ready.get(fd)
                if action is not None:
                    action()
                elif fd == self._poke:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._poke)
            for visitor in list(self._visitors):
                if visitor.share not in self._doors or visitor.overdue():
                    self._show_out(visitor)
        for visitor in list(self._visitors):
            self._show_out(visitor)
        with Listener._lock:  # who removed the last share may not have poked yet
            self.close()

    def close(self) -> None:
        self._epoll.close()
        os.close(self._poke)

    def _patience(self) -> float | None:
        """Seconds until the next stranger has waited long enough."""
        ends = [visitor.until for visitor in self._visitors if visitor.until is not None]
        return max(min(ends) - time.monotonic(), 0.01) if ends else None

    def _let_in(self, door: _Door) -> None:
        try:
            sock, _ = door.socket.accept()
        except OSError as error:  # gone again, or no descriptor left, or nobody is let in any more
            if door.share in self._doors and not isinstance(error, BlockingIOError | ConnectionError):
                _log.warning("cannot let in who asks for model %r: %s", door.share.name, error)
                time.sleep(_BREATHE_S)
            return
        pid, uid = places.peer(sock)
        control = Control(sock)
        if uid != os.geteuid():
            _log.warning("refused process %d of user %d, which asked for model %r", pid, uid, door.share.name)
            _say(
                control,
                {"type": "refused", "why": f"it belongs to user {os.geteuid()}, and you are user {uid}"},
            )
            control.close()
            return
        visitor = _Visitor(door.share, control, pid)
        strangers = [one for one in self._visitors if one.until is not None]
        if len(strangers) >= _MOST_STRANGERS:
            self._show_out(min(strangers, key=lambda one: one.until or 0.0))
        self._visitors.add(visitor)
        self._watch(control.fileno(), lambda: self._hear(visitor))

    def _hear(self, visitor: _Visitor) -> None:
        try:
            for message, fds in visitor.control.drain():
                close_all(fds)
                visitor.answer(message)
        except (faults.PeerGone, faults.ProtocolError, TimeoutError, OSError) as error:
            if not isinstance(error, faults.PeerGone):
                _log.warning(
                    "showed out process %d, which asked for model %r: %s",
                    visitor.pid,
                    visitor.share.name,
                    error,
                )
            self._show_out(visitor)

    def _show_out(self, visitor: _Visitor) -> None:
        self._visitors.discard(visitor)
        self._forget(visitor.control.fileno())
        visitor.control.close()

    # At the end, and in forked copies

    @classmethod
    def end_all(cls) -> None:
        """At exit: leave no socket behind."""
        listener = cls._current
        if listener is not None:
            for share in list(listener._doors):
                listener.remove(share)

    @classmethod
    def after_fork(cls) -> None:
        """A copy must not look as if it listened."""
        listener, cls._current, cls._lock = cls._current, None, threading.Lock()
        if listener is not None:
            for door in listener._doors.values():
                door.socket.close()
            for visitor in listener._visitors:
                visitor.control.close()
            listener._doors, listener._visitors = {}, set()
            listener.close()


class _Door:
    def __init__(self, share: Share, socket: socket.socket, inode: int) -> None:
        self.share = share
        self.socket = socket
        self.inode = inode


class _Visitor:
    """A process that has connected; `until`, by `time.monotonic`, is when it must have said what it wants."""

    def __init__(self, share: Share, control: Control, pid: int) -> None:
        self.share = share
        self.control = control
        self.pid = pid
        self.until: float | None = time.monotonic() + _STRANGER_S

    def overdue(self) -> bool:
        return self.until is not None and time.monotonic() > self.until

    def answer(self, message: dict[str, Any]) -> None:
        """Answer one message. Raises ProtocolError for one that makes no sense."""
        kind = message["type"]
        if kind == "attach":
            self._attach(message.get("hello"))
        elif kind == "describe":
            self._send({"type": "described", **self.share.describe()})
        elif kind == "stats":
            self._send({"type": "stats", **self.share.stats()})
        else:
            raise faults.ProtocolError(
                f"a message of type {kind!r}; expected 'attach', 'describe' or 'stats'"
            )
        self.until = None

    def _attach(self, hello: object) -> None:
        from .shared import NotNow

        if not isinstance(hello, dict) or not isinstance(hello.get("type"), str):
            raise faults.ProtocolError(f"expected a hello, received {hello!r:.200}")
        against = handshake.disagreement(hello, handshake.hello(np.__version__))
        if against is not None:
            self._send({"type": "refused", "why": f"{against[0]}. To do: {against[1]}"})
            return
        try:
            told, fds = self.share.introduce(self.pid)
        except NotNow as error:
            self._send({"type": "later", "why": str(error)})
        except (OpexecError, faults.PeerGone, TimeoutError, OSError) as error:
            self._send({"type": "refused", "why": str(error)})
        else:
            try:
                self._send(told, fds)
            finally:
                close_all(fds)

    def _send(self, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> None:
        self.control.send(message, fds, timeout=_SEND_S)


def _say(control: Control, message: dict[str, Any]) -> None:
    with contextlib.suppress(faults.PeerGone, TimeoutError, OSError):
        control.send(message, timeout=_SEND_S)


atexit.register(Listener.end_all)
os.register_at_fork(after_in_child=Listener.after_fork)
