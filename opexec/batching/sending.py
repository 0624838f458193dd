"""What becomes of a batch: it is sent as one call, and its calls get their outcomes.

Nothing is decided here and nothing kept; the batcher counts what is sent, and says which calls still want an outcome.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from ..connection.timing import now
from ..errors import ModelError
from .batch import Answered, Batch, JoinedCall, JointCall
from .failures import done_with, own

if TYPE_CHECKING:
    from .batcher import Batcher


def send(batcher: Batcher, batch: Batch, calls: list[JoinedCall]) -> None:
    """Send a batch that has these calls. None are left where all were taken out while it waited: then it has ended."""
    if not calls:
        batcher.finish(batch, [], reusable=True)
        return

    def answered(
        joint: JointCall, error: BaseException | None, results: dict[str, np.ndarray[Any, Any]]
    ) -> None:
        if error is None:
            for call in batcher.finish(batch, calls, reusable=True):
                call.succeed(joint, results, call.start)
        elif isinstance(error, ModelError) and len(calls) > 1:
            _send_next_alone(batcher, batch, deque(calls))
        else:
            for call in batcher.finish(batch, calls, done_with(error)):
                call.fail(own(error, calls, batch))

    _submit(batcher, batch, calls, answered)


def _send_next_alone(batcher: Batcher, batch: Batch, calls: deque[JoinedCall], reusable: bool = True) -> None:
    """One of them fails in the model: so that only that one does, each goes by itself, one after the other."""
    while calls:
        call = calls.popleft()
        if call.ended:
            continue

        def answered(
            joint: JointCall,
            error: BaseException | None,
            results: dict[str, np.ndarray[Any, Any]],
            call: JoinedCall = call,
        ) -> None:
            with batcher.lock:
                ended = batcher.claim([call])
            if ended and error is None:
                call.succeed(joint, results, 0)
            elif ended:
                assert error is not None
                call.fail(error)
            _send_next_alone(batcher, batch, calls, reusable and done_with(error))

        _submit(batcher, batch, [call], answered)
        return
    batcher.finish(batch, [], reusable)


def _submit(batcher: Batcher, batch: Batch, calls: list[JoinedCall], answered: Answered) -> None:
    """Send the rows of `calls`, and have `answered` told of the end."""
    deadlines = [call.deadline for call in calls]
    deadline = None if None in deadlines else max(one for one in deadlines if one is not None)
    joint = JointCall(batcher, batch.names, deadline, answered)
    sent = now()
    with batcher.lock:
        batch.joint = joint
        # Not again of calls that are sent again, one by one.
        waits = [sent - call.since for call in calls if not call.sent]
        for call in calls:
            call.sent = True
    batcher.model.latency.add_wait(*waits)
    try:
        joint.start_with(batch.values(calls, batcher.seam.inputs))
    except Exception as error:
        answered(joint, error, {})
