"""Leases: knowing when the last view of a block is gone.

An array that is made directly over a segment's mapping is what every slice, reshape, transpose, torch tensor and memoryview of it keeps
alive, so the end of that one array is the end of them all. A weak reference to it tells: its callback is `deque.append`, which is all that
may happen there, because it runs in any thread, inside any allocation, during garbage collection. Whoever next sends something collects.
"""

from __future__ import annotations

import weakref
from collections import deque


class _Lease(weakref.ref):
    __slots__ = ("place",)

    place: int


class _NoArray:
    """Stands for the lease of a block over which no array was made."""

    __slots__ = ("place",)

    def __init__(self, place):
        self.place = place


class Leases:
    """The blocks lent out, by place. `lend` may run in many threads for different places, `collect` in one at a time."""

    def __init__(self):
        #: place -> its lease, or a list of them while several arrays lie in the block; for looking up places
        self.lent = {}
        #: Truthy if `collect` may find something.
        self.ended: deque = deque()

    def __len__(self):
        """How many blocks have arrays that live, collected or not."""
        return sum(map(_is_held, list(self.lent.values())))

    def lend(self, place, arrays):
        """Note that `arrays`, each made directly over the mapping, lie in the block at `place`."""
        self.begin(place, self.prepare(place, arrays))

    def prepare(self, place, arrays):
        """What `begin` needs to lend `arrays`, which lie in the block at `place`. Nothing is lent yet, and it may be thrown away."""
        append = self.ended.append
        if len(arrays) == 1:
            lease = _Lease(arrays[0], append)
            lease.place = place
            return lease
        leases = [_Lease(array, append) for array in arrays]
        for lease in leases:
            lease.place = place
        return leases

    def begin(self, place, leases):
        """Lend the arrays for which `leases` were prepared."""
        if leases:
            self.lent[place] = leases
        else:
            self.forfeit(place)

    def forfeit(self, place):
        """Note that nobody wants the block at `place`: the next `collect` gives it back."""
        lease = self.lent[place] = _NoArray(place)
        self.ended.append(lease)

    def collect(self):
        """The places of the blocks over which no array lives any more, each once."""
        places = []
        ended, lent = self.ended, self.lent
        while ended:
            lease = ended.popleft()
            place = lease.place
            leases = lent.get(place)
            if leases is not lease:
                if not isinstance(leases, list) or lease not in leases:
                    continue  # it was prepared, and never begun
                leases.remove(lease)  # a dead reference equals only itself
                if leases:
                    continue
            del lent[place]
            places.append(place)
        return places


def _is_held(leases):
    if isinstance(leases, list):
        return any(lease() is not None for lease in list(leases))
    return isinstance(leases, _Lease) and leases() is not None
