"""When each step of a call happened: on both sides, by one clock.

A call that is timed says so in its record, and the worker's answer carries the worker's own times. CLOCK_MONOTONIC, which
`time.monotonic_ns` reads, is the same in all processes of a machine. Timing costs a call a few percent, so calls are timed one in several,
the fewer the shorter they are; long ones are all timed.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from ..ipc import wire

now = time.monotonic_ns

#: What timing a call costs, in nanoseconds, and how much of the calls' time it may take.
_COST_NS = 3_000
_SHARE = 0.001
_FEWEST = 256  # at least one call in so many is timed
#: Times kept until somebody reads them.
_KEPT = 4096


class CallTimes(NamedTuple):
    """The moments of one call, in nanoseconds of CLOCK_MONOTONIC, in the order in which they came.

    On the caller's side `began` (the inputs are looked at), `sent` (they lie in shared memory, and the record is published), `seen` (the answer
    was found) and `returned` (its arrays are made). On the worker's side `taken` (the record was found), `started` and `ended` (the model itself)
    and `answered` (the outputs lie in shared memory, and the record is about to be published).

    The worker's times are what it says, put between the caller's own.
    """

    began: int
    sent: int
    taken: int
    started: int
    ended: int
    answered: int
    seen: int
    returned: int

    @property
    def stages(self) -> dict[str, int]:
        """Nanoseconds: ``copy_in`` (check and copy), ``wake_up`` (until the worker has the record), ``bind`` (the worker finds its inputs), ``model``,
        ``copy_out``, ``reply`` (until the caller has the record), ``arrays``, and their sum, ``total``."""
        began, sent, taken, started, ended, answered, seen, returned = self
        return {
            "copy_in": sent - began,
            "wake_up": taken - sent,
            "bind": started - taken,
            "model": ended - started,
            "copy_out": answered - ended,
            "reply": seen - answered,
            "arrays": returned - seen,
            "total": returned - began,
        }


class Sampler:
    """Decides which calls are timed, and keeps the times for whoever reads them."""

    def __init__(self) -> None:
        #: Of each timed call, and for how many calls it stands: itself, and those that were left out before it.
        self.times: deque[tuple[CallTimes, int]] = deque(maxlen=_KEPT)
        #: How many calls to leave out between two that are timed.
        self.left_out = 0

    def add(self, times: CallTimes, stands_for: int = 1, under_way: int = 1) -> None:
        """Keep the times of a call, which decide how many are timed. `under_way` calls together took what each of them did."""
        self.times.append((times, stands_for))
        took = max((times.returned - times.began) // under_way, 1)
        self.left_out = min(_FEWEST - 1, int(_COST_NS / (_SHARE * took)))


def assembled(began: int, sent: int, answer: tuple[int, ...], seen: int, returned: int) -> CallTimes:
    """The times of a call whose answer is the record `answer`. What the worker wrote is not trusted: it is put in order."""
    _, _, _, _, started, _, ended, offsets = answer
    sent = _between(began, sent, seen)  # not noted yet, where the answer was read by a quicker thread
    taken = started - (offsets & wire.LONGEST_OFFSET)
    answered = ended + (offsets >> 32)
    taken = _between(sent, taken, seen)
    started = _between(taken, started, seen)
    ended = _between(started, ended, seen)
    return CallTimes(began, sent, taken, started, ended, _between(ended, answered, seen), seen, returned)


def _between(earliest: int, moment: int, latest: int) -> int:
    return min(max(moment, earliest), latest)
