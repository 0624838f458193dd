"""The control socket: whole messages between a caller and its worker, some with file descriptors.

A socketpair (AF_UNIX, SOCK_STREAM) carries what is rare: handshake, loading, plans, new segments, failures, goodbye. `frames` says how they
lie in the stream.

Ctrl-C may interrupt any call here, and the stream stays whole. For that the result of each system call goes into a list inside one C
call (``list.extend(map(recvmsg, ...))``), so no byte is taken from the socket, or given to it, without being counted.
"""

from __future__ import annotations

import collections
import os
import select
import socket
import threading
import time

from .faults import PeerGone, ProtocolError
from .frames import MAX_DESCRIPTORS, Frame, descriptors, split

_CHUNK = 256 << 10
_CHUNKS_AT_ONCE = 64
_END: tuple = (b"", [], 0, None)  # what `recvmsg` returns at end of file
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)  # a plain int: enum's operators take microseconds
_RIGHTS = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)

# A blocked sender looks again this often whether a receiving thread, to which it left the incoming messages, is still there.
_LOOK_AGAIN_MS = 50


class Control:
    """One end of a control socket.

    Any thread may send. One thread at a time receives (`receive` or `drain`); seeing to that is the user's task.

    A send that would block takes in what the other side sends meanwhile, so two sides that send large messages at once cannot
    block each other. A thread that polls `fileno()` while another one sends can then miss messages that are already here:
    `on_buffered` is called (in the sending thread; it must not use this object) whenever a send has taken some in.

    A message that comes while this process may open no more files loses descriptors, and the connection cannot go on; but for one whose
    type is among `may_lose`, which is received with those of its first descriptors for which there was room.
    """

    def __init__(self, sock, on_buffered=None, may_lose=()):
        sock.setblocking(False)
        self._sock = sock
        self._owner = os.getpid()
        self.on_buffered = on_buffered
        self._may_lose = may_lose
        self._sending = threading.Lock()
        self._outgoing = None  # the frame under way; one that was begun must be finished before the next
        self._taking = threading.Lock()
        self._receiver_waits = False
        # What came and is not yet split, the messages split off, and why there will be no more. One tuple: it changes in one step.
        self._inbox: tuple = ([], collections.deque(), None)

    def fileno(self):
        """The socket's descriptor, to poll for reading; -1 once closed. Look at `pending()` before polling."""
        return self._sock.fileno()

    # Sending

    def send(self, message, fds=(), timeout=None):
        """Send a dict with a text under ``"type"``, and descriptors (which stay the sender's), after everything sent before.

        `timeout` is in seconds, None for none. If it passes, or Ctrl-C comes, the message was either not sent at all or its
        rest will be sent before the next message.

        Raises PeerGone, TimeoutError, or ValueError for a message that is too long.
        """
        self.send_frame(Frame(message, fds), timeout)

    def send_frame(self, frame, timeout=None):
        """`send` a message that was made a frame. Given again after a timeout, only what is left of it is sent: nothing, maybe."""
        deadline = None if timeout is None else time.monotonic() + timeout
        under(self._sending, timeout, self._send_next, frame, deadline)

    def _send_next(self, frame, deadline):
        if self._outgoing is not None:
            self._finish(self._outgoing, deadline)
        self._outgoing = frame
        try:
            self._finish(frame, deadline)
        finally:
            if not frame.begun():
                self._outgoing = None

    def _finish(self, frame, deadline):
        while True:
            rest = frame.rest()
            if not rest:
                self._outgoing = None
                return
            try:
                frame.sent.extend(
                    map(self._sock.sendmsg, ([rest],), (frame.ancillary(),), (socket.MSG_NOSIGNAL,))
                )
            except BlockingIOError:
                self._wait_to_send(deadline)
            except ConnectionError:
                raise PeerGone("the other side closed the control socket") from None
            except OSError:
                self._check_open()
                raise

    def _wait_to_send(self, deadline):
        events = select.POLLOUT
        if not self._receiver_waits and self._inbox[2] is None:
            events |= select.POLLIN
        ready = self._poll(events, deadline, _LOOK_AGAIN_MS)
        if ready & select.POLLIN:
            before = self.pending()
            with self._taking:
                if not self._receiver_waits:
                    self._take()
            if self.on_buffered is not None and self.pending() > before:
                self.on_buffered()

    # Receiving

    def receive(self, timeout=None):
        """The next message and its descriptors (close-on-exec, the receiver's to close): ``(dict, list)``.

        Raises TimeoutError after `timeout` seconds, PeerGone after the last message, ProtocolError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                with self._taking:
                    self._take()
                    _, messages, failure = self._inbox
                    if messages:
                        return messages.popleft()
                    if failure is not None:
                        raise type(failure)(*failure.args)
                    # From here to the end of the wait a blocked sender leaves what comes to this thread, which would not wake up else.
                    self._receiver_waits = True
                self._poll(select.POLLIN, deadline)
            finally:
                self._receiver_waits = False

    def pending(self):
        """How many whole messages are here already, for which nobody need wait."""
        return len(self._inbox[1])

    def first(self):
        """The first message that is here, left in place, with its descriptors; None if there is none. Does not block.

        Raises, if there is none, PeerGone after the last message, or ProtocolError.
        """
        with self._taking:
            self._take()
            _, messages, failure = self._inbox
            if messages:
                return messages[0]
        if failure is not None:
            raise type(failure)(*failure.args)
        return None

    def drop_first(self):
        """Take the first message away, once it has been handled."""
        self._inbox[1].popleft()

    def drain(self):
        """Every message that is here, as a list of ``(dict, list of descriptors)``; does not block.

        Raises, if there is none, PeerGone after the last message, or ProtocolError.
        """
        with self._taking:
            self._take()
            _, messages, failure = self._inbox
            drained = [messages.popleft() for _ in range(len(messages))]
        if not drained and failure is not None:
            raise type(failure)(*failure.args)
        return drained

    def _take(self):
        """Take in what has come, without blocking. `_taking` is held."""
        for _ in range(_CHUNKS_AT_ONCE):
            chunks, messages, failure = self._inbox
            if failure is not None:
                return
            more = True
            try:
                chunks.extend(map(self._sock.recvmsg, (_CHUNK,), (_RIGHTS,), (_CLOEXEC,)))
            except BlockingIOError:
                more = False
            except ConnectionError:
                chunks.append(_END)
            except OSError:
                self._check_open()
                raise
            if chunks:  # not only this one: an interruption may have left some
                self._split(chunks, messages)
            if not more:
                return

    def _split(self, chunks, messages):
        try:
            found, rest = split(chunks, self._may_lose)
        except ProtocolError as error:
            self._inbox = ([], messages, error)
            _close(descriptors(chunks))
            return
        if chunks[-1][0]:
            self._inbox = (rest, messages + found, None)
            return
        ended = "the other side closed the control socket{}".format(
            " in the middle of a message" if rest else ""
        )
        self._inbox = ([], messages + found, PeerGone(ended))
        _close(descriptors(rest))

    # Both

    def _poll(self, events, deadline, at_most_ms=None):
        """Wait for one of `events`; returns what is ready, 0 after `at_most_ms`. Raises TimeoutError past the deadline."""
        wait = at_most_ms
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    "the other side did not {} in time".format(
                        "read" if events & select.POLLOUT else "answer"
                    )
                )
            wait = int(left * 1000) + 1 if wait is None else min(wait, int(left * 1000) + 1)
        self._check_open()
        poll = select.poll()
        poll.register(self._sock.fileno(), events)
        ready = poll.poll(wait)
        return ready[0][1] if ready else 0

    def _check_open(self):
        if self._sock.fileno() < 0:
            raise PeerGone("this side has closed the control socket")

    def leave(self):
        """At the interpreter's end: the descriptor stays open, for threads that wait at it, and goes with the process."""
        self._sock.detach()

    def close(self):
        """Close this end, and the descriptors nobody received. A thread that waits here gets PeerGone. Idempotent.

        In a forked copy of the process only the copy's descriptors are closed; the connection is its parent's.
        """
        if self._owner == os.getpid():
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # not connected any more
                pass
        self._sock.close()
        chunks, messages, _ = self._inbox
        self._inbox = ([], collections.deque(), PeerGone("this side has closed the control socket"))
        _close(descriptors(chunks))
        for _, fds in messages:
            _close(fds)


def under(lock, timeout, action, *arguments):
    """Call `action` under a lock under which others send. Raises TimeoutError if it is not free within `timeout` seconds; None: wait for ever."""
    locked: list = []  # filled by C code: an interruption falls before the lock is taken or after that is known
    try:
        locked.extend(map(lock.acquire, (True,), (-1 if timeout is None else max(timeout, 0),)))
        if True not in locked:
            raise TimeoutError("another thread has been sending for {} s".format(timeout))
        action(*arguments)
    finally:
        if True in locked:
            lock.release()


def _close(fds):
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass
