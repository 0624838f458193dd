"""Looking at the models of all programs of this user, again and again: rates are what is between two looks.

A program shows up with the models that it shares (`Model.share`, `Supervisor.share`, `opexec up`): it is their sockets that are asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import OpexecError
from ..sharing import places
from ..sharing.visit import Visit

#: How long an owner may take to answer, in seconds.
_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Watched:
    """One shared model: its last snapshot (`snapshot.of`), and what it did since the one before it; None where there was none.

    `calls_per_s` counts the calls of the owner and of clients; `cpu_percent` is of one core, all its workers together. `error` says why there is
    no snapshot.
    """

    name: str
    seen: Mapping[str, Any] | None
    calls_per_s: float | None = None
    errors_per_s: float | None = None
    cpu_percent: float | None = None
    error: str = ""


class Watcher:
    """Keeps a connection to the owner of each shared model, and finds those that come. A context manager."""

    def __init__(self) -> None:
        self._visits: dict[str, Visit] = {}
        self._last: dict[str, Mapping[str, Any]] = {}

    def look(self) -> list[Watched]:
        """All shared models now, by name. One whose owner has gone is not among them."""
        names = places.names()
        for gone in set(self._visits) - set(names):
            self._drop(gone)
        found = []
        for name in names:
            one = self._look_at(name)
            if one is not None:
                found.append(one)
        return found

    def _look_at(self, name: str) -> Watched | None:
        try:
            visit = self._visits.get(name)
            if visit is None:
                visit = self._visits[name] = self._open(name)
            seen = visit.stats(_PATIENCE_S)
        except OpexecError as error:
            last = self._last.get(name)
            self._drop(name)
            try:
                self._visits[name] = self._open(name)
            except OpexecError:  # nobody listens any more
                return None
            if last is not None:
                self._last[name] = last
            return Watched(name, None, error=str(error))
        before, self._last[name] = self._last.get(name), seen
        return compared(name, before, seen)

    def _open(self, name: str) -> Visit:
        return Visit.open(name, time.monotonic() + _PATIENCE_S)

    def _drop(self, name: str) -> None:
        visit = self._visits.pop(name, None)
        self._last.pop(name, None)
        if visit is not None:
            visit.close()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *exception: object) -> None:
        for name in list(self._visits):
            self._drop(name)


def compared(name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Watched:
    """Two snapshots of one model, and what is between them."""
    if before is None or before["owner"] != now["owner"] or now["at"] <= before["at"]:
        return Watched(name, now)
    seconds = now["at"] - before["at"]

    def rate(count: float, earlier: float) -> float:
        return max(count - earlier, 0) / seconds

    earlier = {worker["pid"]: worker["cpu_seconds"] or 0.0 for worker in before["workers"]}
    used = sum(
        max((worker["cpu_seconds"] or 0.0) - earlier.get(worker["pid"], 0.0), 0.0)
        for worker in now["workers"]
    )
    return Watched(
        name,
        now,
        calls_per_s=rate(_calls(now), _calls(before)),
        errors_per_s=rate(sum(now["errors"].values()), sum(before["errors"].values())),
        cpu_percent=100 * used / seconds,
    )


def _calls(seen: Mapping[str, Any]) -> int:
    return int(seen["calls"] + seen.get("client_calls", 0))
