"""Replacing workers for what they have done or hold: `max_calls` and `max_memory`."""

from __future__ import annotations

import logging
import time
import weakref

from ..loading.launch import Launch
from ..machine.process_memory import private_memory
from . import watcher
from .link import Link
from .places import Places
from .policies import Supervision
from .replacing import Replacing
from .replica import Replica, tell

#: How often a worker's calls and memory are looked at, in seconds; after a failed replacement, more rarely; and the memory of one that has no calls.
_LOOK_S = 0.5
_LOOK_AFTER_FAILURE_S = 10.0
_LOOK_IDLE_S = 5.0

#: How long a worker goes on at least, in seconds, whatever it holds: one whose first calls need more than `max_memory` would be followed by the
#: next without end. And one that held more from the start: another would hold as much.
_AT_LEAST_S = 10.0
_IN_VAIN_S = 600.0


class Recycling:
    """See the module. Looks from `start` on until `stop`."""

    def __init__(self, places: Places, replacing: Replacing, most: Supervision) -> None:
        self._places = places
        self._replacing = replacing
        self._most = most
        self._next: watcher.Watch | None = None
        #: The model of which it was said that `max_memory` is too little for it.
        self._too_large: Launch | None = None

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
                    watcher.aside(f"opexec-restarting-{self._places.name}", self._recycle, place, link, why)
                    return  # one after the other; the thread has the next look taken
        self._look_later(_LOOK_S)

    def _exceeded(self, link: Link) -> str:
        most = self._most
        calls = link.connection.sent + link.client_calls()
        if most.max_calls is not None and calls >= most.max_calls:
            return f"it had {calls} calls (max_calls={most.max_calls})"
        if most.max_memory is not None and self._may_have_grown(link):
            held = private_memory(link.process.pid)
            if held > int(most.max_memory) and not self._too_soon(link, held):
                return f"it held {held} bytes of private memory (max_memory={most.max_memory})"
        return ""

    def _may_have_grown(self, link: Link) -> bool:
        """Whether its memory is to be looked at: it has had calls since the last time, or that is long ago."""
        connection, now = link.connection, time.monotonic()
        calls, when = link.weighed
        if connection.sent == calls and not connection.has_clients and now - when < _LOOK_IDLE_S:
            return False
        # A call that is under way is to be followed by another look.
        link.weighed = (-1 if connection.pending else connection.sent, now)
        return True

    def _too_soon(self, link: Link, held: int) -> bool:
        """Whether it is too soon to replace a worker that holds too much. Says once if it did so before it had served a call."""
        connection, age = link.connection, time.time() - link.since
        served = connection.sent > 0 or connection.has_clients
        if not served:
            link.held_at_first = held
        if link.held_at_first <= int(self._most.max_memory or 0):
            return age < _AT_LEAST_S
        if self._too_large is not self._places.launch:
            self._too_large = self._places.launch
            tell(
                self._places.name,
                link.process.pid,
                "ready",
                f"it held {link.held_at_first} bytes of private memory before its first call, more than max_memory={self._most.max_memory}, and so "
                f"would another: for its memory it is replaced every {_IN_VAIN_S:g} s at most. Raise max_memory",
                logging.WARNING,
            )
        return not served or age < _IN_VAIN_S

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
