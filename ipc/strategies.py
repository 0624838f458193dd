"""How long to look for a record before going to sleep at the bell.

A wake-up through the kernel takes longer than a whole call between two sides that are awake, so a side that waits looks for a while. But who
looks has a core to itself, heats it, and keeps from it whoever else may want it: how long that pays depends on who waits for what.
"""

from __future__ import annotations

import os
import time

#: Looks at the cursor before the first yield. The other side, when awake, mostly answers within these; more cost those with whom a core is shared.
_LOOKS = range(64)

#: How long to look before blocking, in nanoseconds. Longer spins slow the other side down more than a wake-up costs.
SPIN_NS = 50_000

#: The same for the calling side after it woke the other one: a wake-up and an answer out of cold caches take that long.
_SPIN_WAKING_NS = 200_000

#: The same for the answering side where it expects a call: rung for ahead of it, or after it woke the caller. A call then takes several
#: times as long as usual, because a nap leaves nothing of either side in the processor's caches.
SPIN_EXPECTING_NS = 400_000

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
    `crowded` is a function that tells whether others want the cores: then the side that calls looks no longer than usual, and the one that
    answers not at all.
    The side that calls sleeps at once where recent looking was in vain.
    The side that answers looks longer where it expects a call: if it slept too, the pair would wake each other for every call.
    """

    def __init__(self, answers, bell, crowded=None):
        self._answers = answers
        self._brief_ns = _BRIEF_NS if answers else _BRIEF_CALL_NS
        self._bell = bell
        self._crowded = crowded or _never
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
        crowded = self._crowded
        if self._answers and crowded():
            self._seen = 0
            return words[at] != head
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
        while not crowded() and now() < end and not self._bell.stirs():
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
            return SPIN_EXPECTING_NS if woke_peer else SPIN_NS
        if not self._seen and not self._brief and self._vain >= _PATIENCE:
            self._waits += 1
            self._brief = self._waits % _RETRY == 0
            return 0
        return _SPIN_WAKING_NS if woke_peer else SPIN_NS


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


def _never():
    return False


STRATEGIES = ("adaptive", "block", "spin")


def strategy(name, bell, answers=False, crowded=None):
    """The wait strategy of that name at that bell, for the side that answers or the one that calls. `crowded`: see `Adaptive`.

    With a single usable core always `Block`: who looks keeps the other from answering.
    """
    if name not in STRATEGIES:
        raise ValueError("wait is {!r}; expected one of {}".format(name, ", ".join(STRATEGIES)))
    if name == "block" or usable_cores() == 1:
        return Block()
    return Spin() if name == "spin" else Adaptive(answers, bell, crowded)
