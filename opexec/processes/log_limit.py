"""How much a worker may print into the log.

A worker has tokens for lines and for bytes. When they are used up, its lines are only counted, for a second; then it has what came together
meanwhile. So of a flood one sees a stretch of lines in a row each second, and between two stretches how much was left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: How long nothing is let through once the tokens are used up, in seconds.
PAUSE_S = 1.0


@dataclass(frozen=True)
class LogLimit:
    """At most `lines` and `bytes` a second, over any length of time; after a calm, `burst` seconds' worth of both at once."""

    lines: int = 1000
    bytes: int = 1 << 20
    burst: float = 5.0

    def __post_init__(self) -> None:
        if self.lines < 1 or self.bytes < 1:
            raise ValueError(
                f"a limit of {self.lines} lines and {self.bytes} bytes a second; expected at least 1 of both"
            )
        if not self.burst >= PAUSE_S:
            raise ValueError(f"a burst of {self.burst} seconds' worth; expected at least {PAUSE_S:g}")

    def __str__(self) -> str:
        return f"{self.lines} lines or {self.bytes} bytes a second"


#: What holds for every worker.
LIMIT = LogLimit()


class Suppressed(NamedTuple):
    """Lines that were not let through."""

    lines: int
    bytes: int


class Limiter:
    """Lets one worker's lines through, or counts them. Any thread may call any method. Without a `limit` all come through."""

    def __init__(self, limit: LogLimit | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._as_of = clock()
        self._lines = 0.0
        self._bytes = 0.0
        self._shut_until: float | None = None
        self._suppressed = Suppressed(0, 0)
        if limit is not None:
            self._lines, self._bytes = limit.lines * limit.burst, limit.bytes * limit.burst

    @property
    def suppressing(self) -> bool:
        """Whether lines were left out of which nobody was told yet."""
        return self._suppressed.lines > 0

    def room(self) -> int:
        """How many lines may come through now, at most."""
        if self.limit is None:
            return 1 << 30
        with self._lock:
            self._refill()
            return 0 if self._shut_until is not None else int(self._lines)

    def admit(
        self, sizes: Sequence[int], room: int = 0, passed_over: Suppressed | None = None
    ) -> tuple[int, Suppressed | None]:
        """How many of the lines of these sizes in bytes come through, from the first one on, and what is to be told before them.

        With `passed_over`, lines that came after the first `room` ones and do not come through, none that followed comes through either.
        """
        if self.limit is None:
            return len(sizes), None
        most = len(sizes) if passed_over is None else room
        with self._lock:
            self._refill()
            admitted, told = 0, None
            if self._shut_until is None:
                told = self._take()
                for size in sizes[:most]:
                    if self._lines < 1 or self._bytes < size:
                        break
                    self._lines -= 1
                    self._bytes -= size
                    admitted += 1
            if admitted < len(sizes) or passed_over is not None:
                self._add(len(sizes) - admitted, sum(sizes[admitted:]))
                self._add(*(passed_over or (0, 0)))
                if self._shut_until is None:
                    self._shut_until = self._clock() + PAUSE_S
        return admitted, told

    def take_suppressed(self, at_end: bool = False) -> Suppressed | None:
        """What was left out, once a flood's pause is over, or at once `at_end`; None if that is nothing. It is told once."""
        with self._lock:
            self._refill()
            return self._take() if self._shut_until is None or at_end else None

    def begin_anew(self) -> None:
        """In a forked child: the thread that held the lock is not there, and what was left out is the parent's to tell."""
        self._lock = threading.Lock()
        self._suppressed = Suppressed(0, 0)

    def _add(self, lines: int, bytes: int) -> None:
        self._suppressed = Suppressed(self._suppressed.lines + lines, self._suppressed.bytes + bytes)

    def _take(self) -> Suppressed | None:
        taken, self._suppressed = self._suppressed, Suppressed(0, 0)
        return taken if taken.lines else None

    def _refill(self) -> None:
        now = self._clock()
        passed, self._as_of = max(now - self._as_of, 0.0), now
        if self.limit is not None:
            self._lines = min(self._lines + passed * self.limit.lines, self.limit.lines * self.limit.burst)
            self._bytes = min(self._bytes + passed * self.limit.bytes, self.limit.bytes * self.limit.burst)
        if self._shut_until is not None and now >= self._shut_until:
            self._shut_until = None
