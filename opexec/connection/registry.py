"""The connections of this process: for its end, for its forked copies, and for who looks for an answer while others wait for theirs."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ending import Ending

# As keys, because `keyrefs` makes its list in one step, whatever other threads do; a set would have to be gone through.
_known: weakref.WeakKeyDictionary[Ending, None] = weakref.WeakKeyDictionary()


def enter(connection: Ending) -> None:
    _known[connection] = None


def leave(connection: Ending) -> None:
    _known.pop(connection, None)


def known() -> list[Ending]:
    """All that have entered, have not left and still exist."""
    return [connection for ref in _known.keyrefs() if (connection := ref()) is not None]


def busy(most: int) -> int:
    """How many workers of this process have calls to answer, or `most` if there are no fewer."""
    count = 0
    for ref in _known.keyrefs():
        connection = ref()
        if connection is not None and connection.calls.unanswered and connection.dead is None:
            count += 1
            if count == most:
                break
    return count
