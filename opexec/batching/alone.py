"""A call of a batched model that goes by itself, because there is nobody to be joined with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .batcher import Batcher


class Alone:
    """Counts a call that its caller makes alone: until `leave`, or until nobody has this any more, where Ctrl-C came before."""

    counted = False

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        batcher.count(self)

    def leave(self) -> None:
        """The call has ended."""
        if self._batcher.uncount(self):
            self._batcher.send_due()

    def __del__(self) -> None:
        # A forked copy has nothing to count, and another thread of the original may have held the lock.
        if self.counted and not self._batcher.model.replicas.is_copy and self._batcher.uncount(self):
            self._batcher.send_due_soon()
