"""What a user decides about batching."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """How calls of a model are joined into batches (docs/batching.md).

    `max_size`: most rows in a batch: entries along the joined dimension, of all its calls together. A call with more goes alone.
    `max_delay`: how long, in seconds, an idle worker is kept waiting after its last answer, at most, for as many calls as were under way at a time
        just before. Otherwise it gets at once what there is, so a lone caller never waits.
    `symbol`: the symbol of the specs along which calls are joined; by default, the only one that every input and every output has.
    """

    max_size: int = 32
    max_delay: float = 0.002
    symbol: str | None = None

    def __post_init__(self) -> None:
        size, delay = self.max_size, self.max_delay
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"max_size is {size!r}; expected a whole number of rows, 1 or more")
        if (
            not isinstance(delay, int | float)
            or isinstance(delay, bool)
            or not (delay >= 0 and math.isfinite(delay))
        ):
            raise ValueError(f"max_delay is {delay!r}; expected a number of seconds, not below zero")
        if self.symbol is not None and (not isinstance(self.symbol, str) or not self.symbol):
            raise ValueError(f"symbol is {self.symbol!r}; expected a symbol of the model's specs, or None")
