"""What workers print: one thread reads the standard output and error of all of them.

Each line goes to the logger ``opexec.worker``, at level INFO, with the record attributes `worker` (its name), `worker_pid` and `stream`
(``"stdout"`` or ``"stderr"``). The last lines of each stream are kept for the message of a worker that died.

A worker that prints more than its share (`log_limit.LogLimit`) is read on, so that it does not wait in its own write, but its lines are
only counted: a WARNING says how many there were. Memory is bounded by the tails, whatever comes.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import os
import select
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .log_limit import LIMIT, Limiter, LogLimit, Suppressed

#: Lines kept of each stream.
TAIL_LINES = 50

#: Longest line in bytes; what is beyond is left out, and the line says so.
LINE_BYTES = 4096

#: Lines of a stack that are kept, of all threads together.
STACK_LINES = 1000

_STREAMS = ("stdout", "stderr")
_CHUNK = 64 << 10

# A flooding worker must not make this thread a busy one, from which the caller's threads would have to win the interpreter.
_PAUSE_S = 0.002

#: When there is no memory, it waits this long, in seconds, before it tries again.
_BREATHE_S = 0.05

#: How often it is looked whether the end of a flood is to be told, in seconds.
_TELL_S = 0.25

_logger = logging.getLogger("opexec.worker")


class WorkerLogs:
    """The two streams of one worker, which share what `limit` allows."""

    def __init__(self, name: str, limit: LogLimit | None = LIMIT) -> None:
        """Opens the pipes. `writers` are the ends for the worker; `started` closes this process's copies of them."""
        self._name = name
        limiter = Limiter(limit)
        self.writers: tuple[int, ...] = ()
        self._streams: dict[str, _Stream] = {}
        try:
            for stream in _STREAMS:
                reader, writer = os.pipe()
                self.writers += (writer,)
                self._streams[stream] = _Stream(reader, name, stream, limiter)
        except BaseException:
            self.close()
            raise

    def started(self, pid: int) -> None:
        """The worker has its ends now; begin to read."""
        self._close_writers()
        for stream in self._streams.values():
            stream.extra["worker_pid"] = pid
            _Pump.current().watch(stream)

    def tail(self, stream: str = "stderr") -> tuple[str, ...]:
        """The last lines of ``"stdout"`` or ``"stderr"``, an unfinished one included, oldest first."""
        return self._streams[stream].tail()

    def stack(self) -> contextlib.AbstractContextManager[list[str]]:
        """What faulthandler prints to standard error while the context lasts, which is not among the last lines then. The list grows."""
        return self._streams["stderr"].stack()

    def drain(self, timeout: float) -> None:
        """Read what is in the pipes now, for up to `timeout` seconds: of a worker that has died, everything it printed.

        Does not wait for end of file: the worker's own children may hold the pipes open.
        """
        deadline = time.monotonic() + timeout
        for stream in self._streams.values():
            stream.drain(deadline)

    def close(self) -> None:
        """Stop reading; the tails stay. Idempotent."""
        self._close_writers()
        for stream in self._streams.values():
            stream.close()
        for stream in self._streams.values():
            _guarded(functools.partial(stream.tell_suppressed, at_end=True))

    def _close_writers(self) -> None:
        writers, self.writers = self.writers, ()
        for fd in writers:
            os.close(fd)


class _Stream:
    """The reading end of one pipe."""

    def __init__(self, fd: int, worker: str, stream: str, limiter: Limiter) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.limiter = limiter
        self.extra: dict[str, object] = {"worker": worker, "worker_pid": None, "stream": stream}
        self._lines: collections.deque[_Line] = collections.deque(maxlen=TAIL_LINES)
        self._partial = b""
        self._omitted = 0  # bytes left out of the partial line
        self._stack: list[str] | None = None
        self._lock = threading.RLock()

    def read(self) -> bool:
        """Read and handle one chunk; True if there may be more."""
        forward = _logger.isEnabledFor(logging.INFO)
        with self._lock:
            data = self._read()
            if data is None:
                return False
            room = self.limiter.room() if forward else 0
            # Of a stack that was asked for, and of what was printed before it, each line is looked at.
            wanted = room if self._stack is None else len(data)
            lines, passed_over = self._split(data, wanted)
            self._keep(lines)
            if not data:
                self.close()
        # Outside of the lock: what a user's handler does with a line is nobody else's concern.
        if forward:
            sizes = [len(line.raw) + 1 for line in lines]
            admitted, suppressed = self.limiter.admit(sizes, wanted, passed_over)
            if suppressed is not None:
                self._tell(suppressed)
            for line in lines[:admitted]:
                _logger.info("%s: %s", self.extra["worker"], line.text(), extra=self.extra)
        return len(data) > 0

    def _keep(self, lines: list[_Line]) -> None:
        stack = self._stack
        if stack is None:
            self._lines.extend(lines)
            return
        for line in lines:
            text = line.text()
            if not is_stack(text):
                self._lines.append(line)
            elif len(stack) < STACK_LINES:
                stack.append(text)

    @contextlib.contextmanager
    def stack(self) -> Iterator[list[str]]:
        lines: list[str] = []
        self._stack = lines
        try:
            yield lines
        finally:
            self._stack = None

    def _read(self) -> bytes | None:
        """A chunk; empty at end of file; None if there is nothing to read."""
        if self.fd < 0:
            return None
        try:
            return os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return None

    def _split(self, data: bytes, wanted: int) -> tuple[list[_Line], Suppressed | None]:
        """The lines that `data` completes; at the end of file the unfinished one.

        Of very many, those from `wanted` on that the tail would not keep either are passed over, and how many they are is told.
        """
        if not data:
            return [self._take_partial()] if self._partial else [], None
        if data.count(b"\n") <= wanted + TAIL_LINES:
            return self._complete(data.split(b"\n")), None
        first = data.split(b"\n", wanted)
        over, *last = first.pop().rsplit(b"\n", TAIL_LINES + 1)
        lines = self._complete([*first, b""])
        passed_over = Suppressed(over.count(b"\n") + 1, len(over) + 1 + len(self._partial) + self._omitted)
        self._partial, self._omitted = b"", 0
        return lines + self._complete(last), passed_over

    def _complete(self, pieces: list[bytes]) -> list[_Line]:
        """The lines that all pieces but the last one end; the last one begins a line."""
        lines = []
        self._append(pieces[0])
        for piece in pieces[1:]:
            lines.append(self._take_partial())
            self._append(piece)
        return lines

    def _append(self, piece: bytes) -> None:
        # As on a terminal, what follows a carriage return takes the place of what was before: a progress bar is one line, not a thousand.
        text = self._partial + piece
        start = text.rstrip(b"\r").rfind(b"\r") + 1
        if start:
            self._omitted = 0
        self._partial = text[start : start + LINE_BYTES]
        self._omitted += max(0, len(text) - start - LINE_BYTES)

    def _take_partial(self) -> _Line:
        line = _Line(self._partial, self._omitted)
        self._partial, self._omitted = b"", 0
        return line

    def tail(self) -> tuple[str, ...]:
        with self._lock:
            lines = list(self._lines)
            if self._partial:
                lines.append(_Line(self._partial, 0))
        return tuple(line.text() for line in lines[-TAIL_LINES:])

    def tell_suppressed(self, at_end: bool = False) -> None:
        """Tell of lines that were left out, if it is time to."""
        suppressed = self.limiter.take_suppressed(at_end)
        if suppressed is not None:
            self._tell(suppressed)

    def _tell(self, suppressed: Suppressed) -> None:
        _logger.warning(
            "%s: %d lines / %d bytes suppressed, which were more than %s",
            self.extra["worker"],
            suppressed.lines,
            suppressed.bytes,
            self.limiter.limit,
            extra={
                **self.extra,
                "suppressed_lines": suppressed.lines,
                "suppressed_bytes": suppressed.bytes,
            },
        )

    def drain(self, deadline: float) -> None:
        while time.monotonic() < deadline and self.read():
            pass

    def renew_lock(self) -> None:
        """In a forked child: the thread that held the lock is not there."""
        self._lock = threading.RLock()
        self.limiter.begin_anew()

    def close(self) -> None:
        with self._lock:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                _Pump.forget(fd)
                os.close(fd)


class _Line(NamedTuple):
    """As it came, up to LINE_BYTES of it."""

    raw: bytes
    omitted: int

    def text(self) -> str:
        text = self.raw.rstrip(b"\r").decode("utf-8", "backslashreplace")
        return f"{text} [{self.omitted} bytes left out]" if self.omitted else text


class _Pump:
    """The thread that reads all streams; a forked child makes its own when it needs one."""

    _current: _Pump | None = None

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.streams: dict[int, _Stream] = {}
        threading.Thread(target=self._run, name="opexec-logs", daemon=True).start()

    def watch(self, stream: _Stream) -> None:
        self.streams[stream.fd] = stream
        self.poll.register(stream.fd, select.EPOLLIN)

    @classmethod
    def forget(cls, fd: int) -> None:
        if cls._current is not None and cls._current.streams.pop(fd, None) is not None:
            cls._current.poll.unregister(fd)

    def _run(self) -> None:
        flooding: set[_Stream] = set()
        while True:
            try:
                self._turn(flooding)
            except MemoryError:  # what was not read is still in the pipes
                time.sleep(_BREATHE_S)
            time.sleep(_PAUSE_S)

    def _turn(self, flooding: set[_Stream]) -> None:
        ready = self.poll.poll(_TELL_S if flooding else None)
        # A stream may have been closed meanwhile, and another one have got its number: reading never blocks and so does no harm.
        for stream in [self.streams.get(fd) for fd, _ in ready]:
            if stream is not None:
                _guarded(stream.read)
                if stream.limiter.suppressing:
                    flooding.add(stream)
        for stream in list(flooding):
            _guarded(stream.tell_suppressed)
            if not stream.limiter.suppressing:
                flooding.discard(stream)

    @classmethod
    def current(cls) -> _Pump:
        with _starting:
            if cls._current is None:
                cls._current = cls()
            return cls._current


def _guarded(action: Callable[[], object]) -> None:
    """What a user's filter or handler raises must not keep the other workers' lines from coming."""
    try:
        action()
    except Exception:
        traceback.print_exc()


def is_stack(line: str) -> bool:
    """Whether a line may be part of a stack that faulthandler prints."""
    return not line or line.startswith(_OF_A_STACK)


_OF_A_STACK = ('  File "', "Thread 0x", "Current thread 0x", "  <no Python frame>", "  ...")

_starting = threading.Lock()


def _after_fork_in_child() -> None:
    """The workers are the parent's: a copy reads nothing of them, and must not keep their pipes open."""
    global _starting
    _starting = threading.Lock()
    pump, _Pump._current = _Pump._current, None
    if pump is not None:
        pump.poll.close()  # this copy only; to unregister anything would do so for the parent
        for stream in pump.streams.values():
            os.close(stream.fd)
            stream.fd = -1
            stream.renew_lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
