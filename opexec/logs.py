"""What workers print: one thread reads the standard output and error of all of them.

Each line goes to the logger ``opexec.worker``, at level INFO, with the record attributes `worker` (its name), `worker_pid` and `stream`
(``"stdout"`` or ``"stderr"``). The last lines of each stream are kept for the message of a worker that died.

Memory is bounded by the tails. A worker that prints faster than its lines are handled waits in its own write, not the caller in anything.
"""

from __future__ import annotations

import collections
import logging
import os
import select
import threading
import time
import traceback

#: Lines kept of each stream.
TAIL_LINES = 50

#: Longest line in bytes; what is beyond is left out, and the line says so.
LINE_BYTES = 4096

_STREAMS = ("stdout", "stderr")
_CHUNK = 64 << 10

# A flooding worker must not make this thread a busy one, from which the caller's threads would have to win the interpreter.
_PAUSE_S = 0.002

_logger = logging.getLogger("opexec.worker")


class WorkerLogs:
    """The two streams of one worker."""

    def __init__(self, name: str) -> None:
        """Opens the pipes. `writers` are the ends for the worker; `started` closes this process's copies of them."""
        self._name = name
        self.writers: tuple[int, ...] = ()
        self._streams: dict[str, _Stream] = {}
        try:
            for stream in _STREAMS:
                reader, writer = os.pipe()
                self.writers += (writer,)
                self._streams[stream] = _Stream(reader, name, stream)
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

    def _close_writers(self) -> None:
        writers, self.writers = self.writers, ()
        for fd in writers:
            os.close(fd)


class _Stream:
    """The reading end of one pipe."""

    def __init__(self, fd: int, worker: str, stream: str) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.extra: dict[str, object] = {"worker": worker, "worker_pid": None, "stream": stream}
        self._lines: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._partial = b""
        self._omitted = 0  # bytes left out of the partial line
        self._lock = threading.RLock()

    def read(self) -> bool:
        """Read and handle one chunk; True if there may be more."""
        forward = _logger.isEnabledFor(logging.INFO)
        with self._lock:
            data = self._read()
            if data is None:
                return False
            lines = self._split(data, forward)
            self._lines.extend(lines)
            if not data:
                self.close()
        # Outside of the lock: what a user's handler does with a line is nobody else's concern.
        if forward:
            for line in lines:
                _logger.info("%s: %s", self.extra["worker"], line, extra=self.extra)
        return len(data) > 0

    def _read(self) -> bytes | None:
        """A chunk; empty at end of file; None if there is nothing to read."""
        if self.fd < 0:
            return None
        try:
            return os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return None

    def _split(self, data: bytes, forward: bool) -> list[str]:
        """The lines that `data` completes (if not `forward`, as many as the tail keeps); at the end of file the unfinished one."""
        if not data:
            return [self._take_partial()] if self._partial else []
        pieces = data.split(b"\n")
        if len(pieces) > TAIL_LINES + 1 and not forward:
            del pieces[: -TAIL_LINES - 1]
            self._partial, self._omitted = b"", 0
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

    def _take_partial(self) -> str:
        text = self._partial.rstrip(b"\r").decode("utf-8", "replace")
        if self._omitted:
            text += f" [{self._omitted} bytes left out]"
        self._partial, self._omitted = b"", 0
        return text

    def tail(self) -> tuple[str, ...]:
        with self._lock:
            lines = tuple(self._lines)
            partial = self._partial.rstrip(b"\r").decode("utf-8", "replace")
        return (*lines, partial)[-TAIL_LINES:] if partial else lines

    def drain(self, deadline: float) -> None:
        while time.monotonic() < deadline and self.read():
            pass

    def renew_lock(self) -> None:
        """In a forked child: the thread that held the lock is not there."""
        self._lock = threading.RLock()

    def close(self) -> None:
        with self._lock:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                _Pump.forget(fd)
                os.close(fd)


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
        while True:
            ready = self.poll.poll()
            # A stream may have been closed meanwhile, and another one have got its number: reading never blocks and so does no harm.
            streams = [self.streams.get(fd) for fd, _ in ready]
            for stream in streams:
                if stream is not None:
                    # What a user's filter or handler raises must not keep the other workers' lines from coming.
                    try:
                        stream.read()
                    except Exception:
                        traceback.print_exc()
            time.sleep(_PAUSE_S)

    @classmethod
    def current(cls) -> _Pump:
        with _starting:
            if cls._current is None:
                cls._current = cls()
            return cls._current


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
