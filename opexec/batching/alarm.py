"""When a batcher is to look at its calls though nobody brings one."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..supervision import watcher

if TYPE_CHECKING:
    from .batcher import Batcher


class Alarm:
    """Has a batcher glance at its calls, at the earliest of the times that it is given."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = weakref.ref(batcher)
        self._watch: watcher.Watch | None = None
        self._when = 0.0

    def ring_at(self, when: float) -> None:
        """Under the batcher's lock."""
        if self._watch is not None:
            if self._when <= when:
                return
            self._watch.cancel()
        self._when = when
        own, of = weakref.ref(self), self._batcher

        def ring() -> None:
            alarm, batcher = own(), of()
            if alarm is not None and batcher is not None:
                alarm._watch = None
                batcher.glance()

        self._watch = watcher.at(when, ring)
