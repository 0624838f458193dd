"""A full memory fence for pure Python.

Two sides that each write one word and then read the other's (a cursor, and "I sleep") need a fence between the write and the read, or
both can miss the other's write. Python has no fence, but a lock's operations are atomic instructions. On x86 one locked instruction
orders everything. On machines with weaker ordering (aarch64) acquire keeps later accesses behind it and release keeps earlier ones before
it, so a release followed by an acquire is what orders both directions: two rounds.
"""

from __future__ import annotations

import platform
import threading

#: Whether stores of one side may be seen out of order by the other.
WEAKLY_ORDERED = platform.machine() not in ("x86_64", "AMD64", "i686", "i386")


def make_fence():
    """Return a fence for one thread at a time; each side of a channel has its own, so that nobody waits in it."""
    lock = threading.Lock()

    # `with`, not acquire() and release(): a KeyboardInterrupt between the two would leave the lock held.
    def fence():
        with lock:
            pass

    def double_fence():
        with lock:
            pass
        with lock:
            pass

    return double_fence if WEAKLY_ORDERED else fence
