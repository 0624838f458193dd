"""All models that processes of this user share now."""

from __future__ import annotations

import time
from typing import Any

from ..errors import LoadError
from . import places
from .visit import Visit

#: An owner that does not answer within this time, in seconds, is listed as one that does not.
_PATIENCE_S = 2.0


def running() -> list[dict[str, Any]]:
    """What `Share.describe` tells of each, sorted by name; of an owner that does not answer, its name, pid and the state ``"silent"``.

    Sockets that dead processes left are passed over.
    """
    visits = []
    for name in places.names():
        try:
            visits.append(Visit.open(name, time.monotonic() + _PATIENCE_S))
        except (LoadError, ValueError):
            continue
    # One time for all: several that are silent do not add up.
    deadline = time.monotonic() + _PATIENCE_S
    found = [_described(visit, deadline) for visit in visits]
    return [one for one in found if one is not None]


def _described(visit: Visit, deadline: float) -> dict[str, Any] | None:
    try:
        told = visit.describe(max(deadline - time.monotonic(), 0.1))
    except LoadError:
        if not visit.silent:
            return None  # it ended this very moment
        return {"name": visit.name, "state": "silent", "reason": "it does not answer", "owner": visit.owner}
    finally:
        visit.close()
    del told["type"]
    return told
