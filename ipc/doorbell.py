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
        self._crowded_at = own.crowded
        self._peer_crowded_at = peer.crowded
        #: Whether the other side may have been told that this one is crowded.
        self.told_crowded = False
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
        """Wake the other side ahead of a record, if it sleeps. Without a fence: whether it does is looked at again after publishing.

        One that was told to sleep without a look would do so again, and is left to sleep.
        """
        if self._words[self._peer_at] & 1 and not self.told_crowded:
            self.ring()

    def tell_crowded(self, crowded):
        """Ask the other side to sleep without a look, because others want the cores; or not any more."""
        if crowded:
            self.told_crowded = True  # first: interrupted here, what may have been told is taken back once too often, and not never
            self._words[self._crowded_at] = 1
        elif self.told_crowded:
            self._words[self._crowded_at] = 0
            self.told_crowded = False

    def is_told_crowded(self):
        """Whether the other side asks this one to sleep without a look."""
        return self._words[self._peer_crowded_at] != 0

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
