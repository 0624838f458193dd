"""Replacing workers for what they have done or hold: `max_calls` and `max_memory`."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref

import psutil

from . import watcher
from .link import Link
from .places import Places
from .policies import Supervision
from .replacing import Replacing
from .replica import Replica, tell

#: How often a worker's calls and memory are looked at, in seconds; after a failed replacement, more rarely.
_LOOK_S = 0.25
_LOOK_AFTER_FAILURE_S = 10.0


class Recycling:
    """See the module. Looks from `start` on until `stop`."""

    def __init__(self, places: Places, replacing: Replacing, most: Supervision) -> None:
        self._places = places
        self._replacing = replacing
        self._most = most
        self._next: watcher.Watch | None = None

    def start(self) -> None:
        if self._most.recycles:
            self._look_later(_LOOK_S)

    def stop(self) -> None:
        """Idempotent. The places are closed."""
        if self._next is not None:
            self._next.cancel()

    def _look_later(self, seconds: float) -> None:
        own = weakref.ref(self)

        def look() -> None:
            recycling = own()
            if recycling is not None and not recycling._places.closed:
                recycling._look()

        self._next = watcher.at(time.monotonic() + seconds, look)

    def _look(self) -> None:
        for place in self._places:
            link = place.link
            if link is not None and link.serving:
                why = self._exceeded(link)
                if why:
                    threading.Thread(
                        target=self._recycle,
                        args=(place, link, why),
                        name=f"opexec-restarting-{self._places.name}",
                        daemon=True,
                    ).start()
                    return  # one after the other; the thread has the next look taken
        self._look_later(_LOOK_S)

    def _exceeded(self, link: Link) -> str:
        most = self._most
        if most.max_calls is not None and link.connection.sent >= most.max_calls:
            return f"it had {link.connection.sent} calls (max_calls={most.max_calls})"
        if most.max_memory is not None:
            with contextlib.suppress(psutil.Error):
                used = psutil.Process(link.process.pid).memory_info().rss
                if used > int(most.max_memory):
                    return f"it used {used} bytes of memory (max_memory={most.max_memory})"
        return ""

    def _recycle(self, place: Replica, link: Link, why: str) -> None:
        places = self._places
        seconds = _LOOK_S
        try:
            with place.replacing:
                if place.link is link and link.serving and not places.closed:
                    self._replacing.beside(place, why)
        except Exception as error:
            if not places.closed:
                seconds = _LOOK_AFTER_FAILURE_S
                tell(
                    places.name,
                    link.process.pid,
                    "ready",
                    f"it goes on, though {why}: no other could be loaded: {error}",
                )
        finally:
            if not places.closed:
                self._look_later(seconds)
