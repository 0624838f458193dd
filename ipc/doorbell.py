"""Wake the other side, and wait for it.

A side that is about to sleep announces it in its own line of the channel segment, looks once more, and blocks in `poll` on its eventfd
together with whatever tells that the other side is gone. The other side rings only if it sees the announcement: a wake-up costs the
one who calls it more than a whole call takes when both are awake.

The announcement is a count, odd while asleep, so that one nap is rung for once however many records are sent during it.

The bell may ring ahead of a record, so that the other side's wake-up passes while the record is made. Where there is much to copy that
must be late: a side that looks for what has not come yet takes memory bandwidth from the copy.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import time

from .fence import WEAKLY_ORDERED, make_fence

_ONE = struct.pack("=Q", 1)

#: Looks at the cursor before the first yield. The other side, when awake, mostly answers within these; more cost those with whom a core is shared.
_LOOKS = range(64)

#: How long to look before blocking, in nanoseconds. Longer spins slow the other side down more than a wake-up costs.
_SPIN_NS = 50_000

#: The same for the calling side after it woke the other one: a wake-up and an answer out of cold caches take that long.
_SPIN_WAKING_NS = 200_000

#: The same for the answering side where it expects a call: rung for ahead of it, or after it woke the caller. A call then takes several
#: times as long as usual, because a nap leaves nothing of either side in the processor's caches.
_SPIN_EXPECTING_NS = 400_000

#: How much longer to look for each record in a row that came in time, and how much in all. Where records came promptly the one that is late
#: is held up: its sender's core serves somebody else, another virtual machine perhaps. Sleeping now, this side would lose its own core
#: too, and cost the sender a wake-up; then that one sleeps as well, and so on for each call. What is looked beyond the usual is spent, so it
#: is no more than the calls took that earned it, or than a time slice or so.
_EARNED_NS = 20_000
_MOST_EARNED_NS = 4_000_000

#: Rung for within this time, waits are looked through until one takes longer. By the other side's clock: waking up may take ten times as long on a
#: busy host, and then each side would always sleep before the other one is there. For the side that answers, which looks at its own
#: expense between two calls, and for the one that calls.
_BRIEF_NS = 500_000
_BRIEF_CALL_NS = 1_000_000

#: After this many spins in a row that ended in a block, spin only at every `_RETRY`-th wait, but then for long.
_PATIENCE = 3
_RETRY = 64


class Doorbell:
    """This side's bell, which it sleeps on, and the other side's, which it rings.

    `own` and `peer` are the sides' layouts (`ring.CALLER`, `ring.WORKER`), `own_fd` and `peer_fd` their eventfds, `words` the channel's words.
    `behind_lock` says that this side publishes under a lock, and rings after releasing it.
    """

    def __init__(self, words, own, peer, own_fd, peer_fd, behind_lock=False):
        self._words = words
        self._own_at = own.asleep
        self._peer_at = peer.asleep
        self._rang_at = own.rang
        self._peer_rang_at = peer.rang
        self._tail_at = peer.tail
        self.fd = own_fd
        self._peer_fd = peer_fd
        #: Both eventfds, until they are closed.
        self.descriptors = [own_fd, peer_fd]
        self._writing = threading.Lock()
        self._fence = make_fence()
        # Releasing a lock is a fence by itself, except where a fence takes more than one locked instruction.
        self._fence_ring = None if behind_lock and not WEAKLY_ORDERED else make_fence()
        #: Whether the last sleep was ended by the bell, and whether by nothing but the time.
        self.rung = self.overslept = False
        #: When the other side says it last rang, by `time.monotonic_ns`: not to be trusted.
        self.rung_at = 0
        self._naps = 0
        self._rung = 0
        self._poll = select.poll()
        self._poll.register(own_fd, select.POLLIN)

    def watch(self, fd):
        """Let `sleep` end when `fd` becomes readable, too."""
        self._poll.register(fd, select.POLLIN)

    def ring(self):
        """Wake the other side if it sleeps; True if it does, or is still waking up. After publishing, or shortly before."""
        if self._fence_ring is not None:
            self._fence_ring()
        nap = self._words[self._peer_at]
        if not nap & 1:
            return False
        if nap != self._rung:
            self._words[self._rang_at] = time.monotonic_ns()
            self._write(self._peer_fd)
            self._rung = nap  # last: interrupted before it, the nap is rung for once more, and not never
        return True

    def rouse(self):
        """Wake the other side ahead of a record, if it sleeps. Without a fence: whether it does is looked at again after publishing."""
        if self._words[self._peer_at] & 1:
            self.ring()

    def ring_again(self):
        """Ring whatever the other side has announced: for who has waited so long that a ring may be lost, or the announcement wrong."""
        self._write(self._peer_fd)
        self._rung = nap = self._words[self._peer_at]
        return bool(nap & 1)

    def ring_own(self):
        """End this side's own sleep, from another of its threads."""
        self._write(self.fd)

    def _write(self, fd):
        # Under a lock, which costs nothing beside the write: a thread about to ring must not find the number to be another file's.
        with self._writing:
            if self.descriptors:
                os.write(fd, _ONE)

    def close(self):
        """Close the eventfds, when nobody sleeps any more; ringing does nothing from then on."""
        with self._writing:
            while self.descriptors:
                os.close(self.descriptors.pop())

    def announce(self, head):
        """Announce that this side sleeps. False, and not announced, if there is a record past `head` already."""
        self._naps += 1 + (self._naps & 1)  # odd, whatever an interruption left behind
        self._words[self._own_at] = self._naps
        self._fence()
        if self._words[self._tail_at] == head:
            return True
        self.withdraw()
        return False

    def withdraw(self):
        """Announce that this side is awake."""
        self._naps += self._naps & 1
        self._words[self._own_at] = self._naps

    def sleep(self, head, timeout_ms):
        """Block until the bell rings, a watched descriptor is readable or the time is up, unless there is a record past `head`.

        Returns the readable descriptors, without the bell's own.
        """
        self.rung = self.overslept = False
        try:
            if not self.announce(head):
                return []
            ready = [fd for fd, _ in self._poll.poll(timeout_ms)]
        finally:
            self.withdraw()
        self.overslept = not ready
        if self.fd in ready:
            self.rung = True
            self.rung_at = self._words[self._peer_rang_at]
            self.clear()
            ready.remove(self.fd)
        return ready

    def stirs(self):
        """Whether something but a record would end a sleep at once."""
        return bool(self._poll.poll(0))

    def clear(self):
        """Take back rings that came while nobody slept."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            pass


class Spin:
    """When latency matters more than CPU: looks for a millisecond before it sleeps, at a core's full expense.

    It gives way between looks, which costs nothing where nobody else wants the core. Where both sides were put on one, which a scheduler may
    do with the one that is woken, the one that looks would otherwise keep the other from answering for a whole time slice.
    """

    def ready(self, words, at, head, woke_peer, until=None, now=time.monotonic_ns, give_way=os.sched_yield):
        """Look for a record past `head`; True if it came. After False the side sleeps, or looks elsewhere, and asks again.

        `woke_peer` says that this side just had to wake the other one; `until`, by `time.monotonic`, is when it has no more use for a record.
        """
        end = now() + 1_000_000
        if until is not None:
            end = min(end, until * 1e9)
        while now() < end:
            for _ in _LOOKS:
                if words[at] != head:
                    return True
            give_way()
        return words[at] != head

    def slept(self):
        """Told when a sleep is over that followed looking in vain."""


class Block:
    """When CPU matters more than latency: sleeps at once."""

    def ready(self, words, at, head, woke_peer, until=None):
        return words[at] != head

    def slept(self):
        """As `Spin`'s."""


class Adaptive:
    """When both matter: looks for as long as an answer between two awake sides takes, then sleeps.

    Where looking has paid it looks longer for a while, unless something else stirs `bell`; and where that was rung soon.
    The side that calls sleeps at once where recent looking was in vain.
    The side that answers looks longer where it expects a call: if it slept too, the pair would wake each other for every call.
    """

    def __init__(self, answers, bell):
        self._answers = answers
        self._brief_ns = _BRIEF_NS if answers else _BRIEF_CALL_NS
        self._bell = bell
        self._seen = 0  # records in a row that came in time, without those that were spent on late ones
        self._vain = 0  # waits in a row that looking did not end
        self._waits = 0
        self._began = 0  # to look, before the last sleep
        self._brief = False

    def ready(self, words, at, head, woke_peer, until=None, now=time.monotonic_ns, give_way=os.sched_yield):
        for _ in _LOOKS:
            if words[at] != head:
                self._seen += 1
                return True
        began = now()
        end = began + self._span(woke_peer)
        if until is not None:
            end = min(end, until * 1e9)
        while now() < end:
            give_way()
            if words[at] != head:
                self._seen += 1
                return True
        # From here on it is long enough to miss a message, or an end.
        in_time = max(end, began + self._brief_ns) if self._brief else end
        end = in_time + min(self._seen * _EARNED_NS, _MOST_EARNED_NS)
        if until is not None:
            end = min(end, until * 1e9)
        while now() < end and not self._bell.stirs():
            give_way()
            if words[at] != head:
                late = now() - in_time
                self._seen = self._seen + 1 if late < 0 else max(self._seen - late // _EARNED_NS, 1)
                return True
        self._vain = 1 if self._seen else self._vain + 1
        self._seen = 0
        self._brief = False
        self._began = began
        return False

    def slept(self):
        """Told when a sleep is over that followed looking in vain."""
        bell = self._bell
        self._brief = bell.rung and 0 <= bell.rung_at - self._began < self._brief_ns

    def _span(self, woke_peer):
        """How long to look in any case, in nanoseconds."""
        if self._answers:
            return _SPIN_EXPECTING_NS if woke_peer else _SPIN_NS
        if not self._seen and not self._brief and self._vain >= _PATIENCE:
            self._waits += 1
            self._brief = self._waits % _RETRY == 0
            return 0
        return _SPIN_WAKING_NS if woke_peer else _SPIN_NS


def usable_cores():
    """Cores this process may use: its affinity, and the CPU quota of its control group."""
    cores = len(os.sched_getaffinity(0))
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()[:2]
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores


STRATEGIES = ("adaptive", "block", "spin")


def strategy(name, bell, answers=False):
    """The wait strategy of that name at that bell, for the side that answers or the one that calls.

    With a single usable core always `Block`: who looks keeps the other from answering.
    """
    if name not in STRATEGIES:
        raise ValueError("wait is {!r}; expected one of {}".format(name, ", ".join(STRATEGIES)))
    if name == "block" or usable_cores() == 1:
        return Block()
    return Spin() if name == "spin" else Adaptive(answers, bell)
