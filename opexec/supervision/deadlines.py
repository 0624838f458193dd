"""What follows a call's deadline: a worker that makes no progress for a time of grace is killed.

*No progress*: it took no further call, and is not at a call for which somebody still waits.
"""

from __future__ import annotations

import time
import weakref

from ..connection.calls import Call
from ..ipc import wire
from . import watcher
from .link import Link

#: Between two looks at a worker that makes progress, at least; in seconds.
_LOOK_S = 0.01


def watch(link: Link, call: Call, grace: float | None) -> None:
    """The deadline of `call` has passed: see to it that its worker is killed if it is stuck. None: never."""
    if grace is None or call.deadline is None or not call.id:
        return
    mine = object()
    # Once: who sees that it is late, and who completes it, both come here.
    if call.__dict__.setdefault("overdue", mine) is mine:
        _look_at(link, call, call.deadline + grace, grace)


def _look_at(link: Link, call: Call, when: float, grace: float) -> None:
    worker, late = weakref.ref(link), weakref.ref(call)
    seen = link.connection.taken()

    def look() -> None:
        # Not in the watcher's thread: what the worker asked for may take long to give.
        watcher.aside("opexec-grace", judge)

    def judge() -> None:
        link, call = worker(), late()
        if link is None or call is None:
            return
        connection = link.connection
        # It may have answered, or wait for room, and nobody has read since.
        went_on = connection.catch_up()
        if connection.dead is not None or not connection.calls.was_abandoned(call):
            return
        taken = connection.taken()
        at_another = (
            taken is not None
            and taken[0] == wire.CALL
            and taken[1] != call.id
            and connection.calls.awaits(taken[1])
        )
        if taken != seen or at_another or went_on:
            _look_at(link, call, time.monotonic() + max(grace, _LOOK_S), grace)
            return
        link.process.ask_where()
        if (
            connection.dead is not None
            or connection.taken() != taken
            or not connection.calls.was_abandoned(call)
        ):
            _look_at(link, call, time.monotonic() + max(grace, _LOOK_S), grace)  # it went on, after all
            return
        assert call.deadline is not None
        connection.condemn(
            f"a call ran past its deadline by {time.monotonic() - call.deadline:.3g} s (grace={grace:g})"
        )

    watcher.at(when, look)
