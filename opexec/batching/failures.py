"""What the failure of a joint call means for the calls that were joined."""

from __future__ import annotations

import copy

from ..errors import ModelError, SpecError
from .batch import Batch, JoinedCall


def done_with(error: BaseException | None) -> bool:
    """Whether the worker reads the inputs no more, because it has answered."""
    return error is None or isinstance(error, ModelError | SpecError)


def own(error: BaseException, calls: list[JoinedCall], batch: Batch) -> BaseException:
    """The error of a batch for one of its calls: an exception of its own, because each gets a traceback."""
    mine = copy.copy(error)
    if isinstance(error, SpecError) and len(calls) > 1:
        mine.args = (
            f"{error} ({len(calls)} calls were joined, {batch.rows} rows in all; a batched model gives as many rows as it takes)",
        )
    return mine
