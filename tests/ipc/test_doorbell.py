"""No wake-up is lost, a nap is rung for once, and whatever interrupts a sleep leaves the bell ready for the next one."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from opexec.ipc.doorbell import STRATEGIES, Adaptive, Block, Doorbell, Spin, strategy, usable_cores
from opexec.ipc.ring import CALLER, CHANNEL_BYTES, WORKER

FOR_EVER = -1


class Bells:
    """The bells of both sides over one piece of memory, and what the sides publish, as far as a bell is concerned."""

    def __init__(self, fds):
        self.words = memoryview(bytearray(512)).cast("Q")
        self.fds = fds
        self.caller = Doorbell(self.words, CALLER, WORKER, fds[0], fds[1])
        self.worker = Doorbell(self.words, WORKER, CALLER, fds[1], fds[0])

    def publish(self, side):
        self.words[side.tail] += 1

    def rung(self, fd):
        """How often the bell `fd` was rung since it was last cleared."""
        try:
            return struct.unpack("=Q", os.read(fd, 8))[0]
        except BlockingIOError:
            return 0


@pytest.fixture
def bells(eventfd):
    return Bells([eventfd(), eventfd()])


def readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


# One step at a time


def test_a_side_that_is_awake_is_not_rung(bells):
    for _ in range(3):
        bells.publish(WORKER)
        assert bells.worker.ring() is False
    assert not readable(bells.fds[0])


def test_one_ring_a_nap(bells):
    for nap in range(5):
        assert bells.caller.announce(nap)
        for _ in range(4):
            bells.words[WORKER.tail] = nap + 1
            bells.worker.ring()
        assert bells.rung(bells.fds[0]) == 1
        bells.caller.withdraw()
        assert bells.worker.ring() is False and bells.rung(bells.fds[0]) == 0


def test_whoever_rings_learns_whether_somebody_sleeps(bells):
    assert bells.worker.ring() is False
    assert bells.caller.announce(0)
    assert bells.worker.ring() is True
    bells.caller.withdraw()
    assert bells.worker.ring() is False
    assert bells.caller.announce(0)
    assert bells.worker.ring() is True


def test_who_was_rung_ahead_of_a_record_is_rung_again_for_it(bells):
    assert bells.caller.announce(0)
    bells.worker.ring()  # the record is on its way
    bells.caller.withdraw()
    assert bells.rung(bells.fds[0]) == 1
    assert bells.caller.announce(0)  # it did not want to wait so long
    bells.publish(WORKER)
    bells.worker.ring()
    assert bells.rung(bells.fds[0]) == 1


def test_a_bell_can_be_rung_again_in_the_same_nap(bells):
    assert bells.caller.announce(0)
    for _ in range(3):
        assert bells.worker.ring_again() is True
        assert bells.rung(bells.fds[0]) == 1
    bells.worker.ring()
    assert bells.rung(bells.fds[0]) == 0
    bells.caller.withdraw()
    assert bells.worker.ring_again() is False


def test_a_sleep_says_whether_the_bell_ended_it(bells):
    reader, writer = os.pipe()
    bells.caller.watch(reader)
    os.write(writer, b"x")
    bells.caller.sleep(0, FOR_EVER)
    assert not bells.caller.rung
    os.write(bells.fds[0], struct.pack("=Q", 1))
    bells.caller.sleep(0, FOR_EVER)
    assert bells.caller.rung
    os.close(reader)
    os.close(writer)


def test_a_record_that_is_there_keeps_a_side_awake(bells):
    bells.publish(WORKER)
    assert bells.caller.announce(0) is False
    assert bells.worker.ring() is False, "it was rung though it did not sleep"
    assert bells.caller.sleep(0, FOR_EVER) == []
    assert bells.worker.ring() is False


def test_a_ring_ends_a_sleep_and_is_used_up(bells):
    def ring():
        while not bells.words[CALLER.asleep] & 1:
            os.sched_yield()
        bells.publish(WORKER)
        assert bells.worker.ring()

    for head in range(3):
        thread = threading.Thread(target=ring)
        thread.start()
        assert bells.caller.sleep(head, FOR_EVER) == []
        thread.join()
        assert bells.words[WORKER.tail] == head + 1
        assert not readable(bells.fds[0]) and bells.worker.ring() is False


def test_a_sleep_ends_when_its_time_is_up(bells):
    assert bells.caller.sleep(0, 1) == []
    assert bells.worker.ring() is False


def test_a_sleep_ends_when_something_watched_is_readable(bells):
    readers = []
    for _ in range(2):
        reader, writer = os.pipe()
        readers.append(reader)
        bells.caller.watch(reader)
        os.write(writer, b"x")
        os.close(writer)
    assert bells.caller.sleep(0, FOR_EVER) == readers
    bells.caller.announce(0)
    bells.worker.ring()
    bells.caller.withdraw()
    assert bells.caller.sleep(0, FOR_EVER) == readers, "the bell itself is nobody else's business"
    assert not readable(bells.fds[0])
    for reader in readers:
        os.close(reader)


def test_rings_for_a_nap_that_is_over_can_be_cleared(bells):
    bells.caller.announce(0)
    bells.worker.ring()
    bells.caller.withdraw()
    assert readable(bells.fds[0])
    bells.caller.clear()
    assert not readable(bells.fds[0])
    bells.caller.clear()


@pytest.mark.parametrize(
    "before", ["an announcement", "an announcement that was taken back", "two announcements"]
)
def test_an_announcement_holds_whatever_was_left_before(bells, before):
    bells.caller.announce(0)
    if before != "an announcement":
        bells.caller.withdraw() if before.endswith("back") else bells.caller.announce(0)
    bells.worker.ring()
    bells.rung(bells.fds[0])
    assert bells.caller.announce(0)
    bells.worker.ring()
    assert readable(bells.fds[0]), "this side announced that it sleeps, and the other thinks it is awake"


# Any order of steps


class BellMachine(RuleBasedStateMachine):
    """Steps of a side that publishes and rings, and of one that looks, announces, sleeps and reads, in any order."""

    def __init__(self):
        super().__init__()
        self.bells = Bells([eventfd_of_hypothesis(), eventfd_of_hypothesis()])
        self.head = 0
        self.asleep = False
        self.to_ring = False

    @rule()
    def publish(self):
        self.bells.publish(WORKER)
        self.to_ring = True

    @precondition(lambda self: self.to_ring)
    @rule()
    def ring(self):
        self.bells.worker.ring()
        self.to_ring = False

    @precondition(lambda self: not self.asleep)
    @rule()
    def announce(self):
        self.asleep = self.bells.caller.announce(self.head)

    @precondition(lambda self: self.asleep)
    @rule()
    def wake_up_and_read(self):
        self.bells.caller.withdraw()
        self.bells.caller.clear()
        self.asleep = False
        self.read()

    @precondition(lambda self: not self.asleep)
    @rule()
    def read(self):
        self.head = self.bells.words[WORKER.tail]

    @precondition(lambda self: not self.asleep)
    @rule()
    def sleep_shortly(self):
        self.bells.caller.sleep(self.head, 0)

    @invariant()
    def no_wake_up_is_lost(self):
        unread = self.bells.words[WORKER.tail] != self.head
        if self.asleep and unread and not self.to_ring:
            assert readable(self.bells.fds[0]), (
                "it sleeps on, though there is a record and nobody will ring any more"
            )

    def teardown(self):
        for fd in self.bells.fds:
            os.close(fd)


def eventfd_of_hypothesis():
    import ctypes

    return ctypes.CDLL(None).eventfd(0, os.O_NONBLOCK | os.O_CLOEXEC)


TestBell = BellMachine.TestCase
TestBell.settings = settings(max_examples=50)


# Two processes


def test_two_processes_that_always_sleep_lose_no_wake_up(segments, eventfd, other_side):
    rounds = 20_000
    segment, bells = segments(CHANNEL_BYTES), (eventfd(), eventfd())
    words = memoryview(segment.map).cast("Q")
    sides = [other_side(role, rounds, segment, *bells) for role in ("answer", "call")]
    before, unchanged = None, 0
    while any(side.poll() is None for side in sides):
        try:
            sides[1].wait(0.05)
        except subprocess.TimeoutExpired:
            pass
        else:
            sides[0].wait()
        now = [words[at] for side in (CALLER, WORKER) for at in (side.tail, side.head, side.asleep)]
        unchanged = unchanged + 1 if now == before else 0
        before = now
        # Both sleep, and nothing moves any more.
        assert unchanged < 200, "a wake-up was lost in round {}: {}".format(words[CALLER.tail], now)
        assert all(side.poll() in (None, 0) for side in sides), "a side failed"
    assert words[CALLER.tail] == words[CALLER.head] == words[WORKER.tail] == words[WORKER.head] == rounds


# Ctrl-C


@pytest.fixture
def ctrl_c():
    """Sends this process Ctrl-C, in the main thread, as soon as a condition holds."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    threads = []

    def when(condition):
        def run():
            while not condition():
                os.sched_yield()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield when
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("rung", [False, True], ids=["not rung", "rung"])
def test_ctrl_c_in_a_sleep_leaves_the_bell_ready(bells, ctrl_c, rung):
    for head in range(5):

        def asleep():
            return bells.words[CALLER.asleep] & 1

        with pytest.raises(KeyboardInterrupt):
            ctrl_c(asleep)
            while True:  # Python notices a signal that came just before it blocked only when it wakes up
                bells.caller.sleep(head, 50)
        assert not asleep(), "the other side thinks that this one still sleeps"
        if rung:  # for the nap that was interrupted, at the very end
            os.write(bells.fds[0], struct.pack("=Q", 1))
        assert bells.worker.ring() is False
        assert bells.caller.sleep(head, 1) == []
        assert not readable(bells.fds[0])

        assert bells.caller.announce(head)
        bells.publish(WORKER)
        assert bells.worker.ring() is True and readable(bells.fds[0])
        bells.caller.withdraw()
        bells.caller.clear()


def test_ctrl_c_anywhere_in_a_sleep_or_a_ring_loses_no_later_wake_up(eventfd, interruptions):
    fds = [eventfd(), eventfd()]

    def prepare():
        for fd in fds:
            Bells.rung(None, fd)
        return Bells(fds)

    def operate(bells):
        assert bells.caller.announce(0)
        bells.worker.ring()
        bells.caller.withdraw()
        bells.caller.sleep(0, 0)

    for bells in interruptions(prepare, operate):
        for head in range(2):  # whoever comes next
            bells.caller.clear()
            assert bells.caller.announce(head)
            bells.publish(WORKER)
            bells.worker.ring()
            assert readable(fds[0]), "a wake-up was lost"
            bells.caller.withdraw()


# Strategies


class Words:
    """Words as a strategy sees them: the tail is 0 until the n-th look at it, then 1."""

    def __init__(self, arrives):
        self.looks = 0
        self.arrives = arrives

    def __getitem__(self, at):
        assert at == WORKER.tail
        self.looks += 1
        return int(self.looks > self.arrives)


NEVER = 10**12


class Clock:
    """Time passes by 1 us whenever somebody looks at it or gives way."""

    def __init__(self):
        self.now = 0
        self.given_way = 0

    def __call__(self):
        self.now += 1000
        return self.now

    def give_way(self):
        self.given_way += 1
        self.now += 1000


def wait(strategy, words, woke_peer=False, until=None):
    """Whether the strategy saw the record, and how long it looked: ``(bool, looks, nanoseconds)``."""
    clock = Clock()
    if isinstance(strategy, Adaptive):
        ready = strategy.ready(words, WORKER.tail, 0, woke_peer, until, clock, clock.give_way)
    else:
        ready = strategy.ready(words, WORKER.tail, 0, woke_peer, until)
    return ready, words.looks, clock.now


class Quiet:
    """A bell that nothing stirs, or that `rings` some nanoseconds after a strategy has begun to look."""

    def __init__(self):
        self.rung, self.rung_at = False, 0

    def stirs(self):
        return False

    def rings(self, after):
        self.rung, self.rung_at = True, 1000 + after


CALLS, ANSWERS = (
    (lambda bell=None: Adaptive(False, bell or Quiet())),
    (lambda bell=None: Adaptive(True, bell or Quiet())),
)


@pytest.mark.parametrize("make", [Spin, Block, CALLS, ANSWERS], ids=["spin", "block", "calls", "answers"])
@pytest.mark.parametrize("woke_peer", [False, True])
def test_a_strategy_tells_whether_a_record_is_there(make, woke_peer):
    waits = make()
    for _ in range(5):
        assert wait(waits, Words(0), woke_peer) == (True, 1, 0)
        assert wait(waits, Words(NEVER), woke_peer)[0] is False


@pytest.mark.parametrize("make", [Spin, CALLS, ANSWERS], ids=["spin", "calls", "answers"])
def test_who_spins_sees_what_arrives_meanwhile(make):
    for looks in (5, 20, 30):
        assert wait(make(), Words(looks))[:2] == (True, looks + 1)


def test_who_blocks_looks_once():
    assert wait(Block(), Words(1))[:2] == (False, 1)


@pytest.mark.parametrize("side", [CALLS, ANSWERS])
def test_each_side_looks_longer_where_a_nap_lies_behind_the_other(side):
    assert wait(side(), Words(NEVER), woke_peer=True)[2] > 2 * wait(side(), Words(NEVER))[2]


def test_a_caller_that_wakes_the_worker_in_vain_soon_sleeps_at_once():
    calling = CALLS()
    looks = [wait(calling, Words(NEVER), woke_peer=True)[2] for _ in range(4)]
    assert looks[3] < looks[0] / 10


def test_spinning_in_vain_stops_and_is_tried_again():
    waits = CALLS()
    spans = [wait(waits, Words(NEVER))[2] for _ in range(100)]
    short, at_first, long = min(spans), spans[0], max(spans)
    assert 10 * short < at_first == spans[1] < long
    assert spans.count(short) > 90, "it goes on spinning though nothing ever comes"
    assert long in spans[10:], "it never tries again for as long as two sides take that both sleep"
    assert wait(waits, Words(3))[0] is True  # an answer that comes at once is what spinning is for
    assert wait(waits, Words(NEVER))[2] >= at_first


@pytest.mark.parametrize("side", [CALLS, ANSWERS])
def test_who_saw_many_records_looks_longer_for_a_late_one_and_once(side):
    at_first = wait(side(), Words(NEVER))[2]
    spans = []
    for seen in (1, 10, 100, 10_000):
        waits = side()
        assert all(wait(waits, Words(3))[0] for _ in range(seen))
        spans.append(wait(waits, Words(NEVER))[2])
        assert wait(waits, Words(NEVER))[2] == at_first, "it looks for long again, though nothing came"
    added = [span - at_first for span in spans]
    assert 0 < added[0] < at_first and added == sorted(added)
    assert 9 < added[2] / added[1] < 11, "not what each record earned"
    assert added[3] < 10_000_000, "longer than a time slice or two"


@pytest.mark.parametrize("side", [CALLS, ANSWERS])
def test_what_comes_late_is_waited_for_out_of_what_was_earned(side):
    waits = side()
    at_first = wait(waits, Words(NEVER))[1]
    assert all(wait(waits, Words(3))[0] for _ in range(100))
    caught = [wait(waits, Words(at_first + 300))[0] for _ in range(20)]
    assert caught.count(True) in (2, 3), "one late record costs a third or so of what a hundred earn"
    assert caught == sorted(caught, reverse=True)
    assert all(wait(waits, Words(3))[0] for _ in range(100))
    assert wait(waits, Words(at_first + 300))[0], "it may be earned again"


@pytest.mark.parametrize("side", [CALLS, ANSWERS])
def test_who_looks_for_long_hears_what_else_would_end_a_sleep(bells, side):
    waits, quiet = side(bells.worker), side()
    for looks in (waits, quiet):
        assert all(wait(looks, Words(3))[0] for _ in range(1000))
    bells.worker.ring_own()
    assert 10 * wait(waits, Words(NEVER))[2] < wait(quiet, Words(NEVER))[2]
    bells.worker.clear()
    assert not bells.worker.stirs()


@pytest.mark.parametrize("side", [CALLS, ANSWERS])
def test_who_looks_as_long_as_the_last_ring_took_hears_it_too(side):
    bell = Quiet()
    waits = side(bell)
    at_first = wait(waits, Words(NEVER))[2]
    bell.rings(1000)
    waits.slept()
    bell.stirs = lambda: True
    assert wait(waits, Words(NEVER))[2] < 2 * at_first


@pytest.mark.parametrize("side", [CALLS, ANSWERS])
@pytest.mark.parametrize(
    "after, brief", [(0, True), (300_000, True), (1_100_000, False), (-5, False), (1 << 63, False)]
)
def test_who_was_rung_for_soon_looks_that_long_next_time_and_once(side, after, brief):
    bell = Quiet()
    waits = side(bell)
    at_first = wait(waits, Words(NEVER))[2]
    bell.rings(after)
    waits.slept()
    looks = wait(side(), Words(NEVER))[1]
    for _ in range(3):  # as long as that pays
        assert wait(waits, Words(3 * looks))[0] is brief
    again = wait(waits, Words(NEVER))[2]
    assert again > 300_000 and again > 5 * at_first if brief else again <= at_first
    assert wait(waits, Words(NEVER))[2] <= at_first


@pytest.mark.parametrize("side", [CALLS, ANSWERS])
def test_a_sleep_that_the_bell_did_not_end_teaches_nothing(side):
    bell = Quiet()
    waits = side(bell)
    at_first = wait(waits, Words(NEVER))[2]
    bell.rings(1000)
    bell.rung = False
    waits.slept()
    assert wait(waits, Words(NEVER))[2] == at_first


@pytest.mark.parametrize("seen", [0, 1000])
@pytest.mark.parametrize("until", [0, 10e-6, 30e-6, 1e-3])
def test_who_has_a_deadline_looks_no_longer(seen, until):
    waits = CALLS()
    assert all(wait(waits, Words(3))[0] for _ in range(seen))
    took = wait(waits, Words(NEVER), until=until)[2]
    assert took < until * 1e9 + 5000
    assert took > until * 1e9 - 5000 or (took > 40_000 and not seen)


def test_who_spins_looks_no_longer_than_until_a_deadline():
    assert not wait(Spin(), Words(NEVER), until=0)[0]
    assert wait(Spin(), Words(0), until=0)[0], "the record was there"
    assert wait(Spin(), Words(20), until=time.monotonic() + 3600)[0]


@pytest.mark.parametrize("make", [Spin, CALLS, ANSWERS], ids=["spin", "calls", "answers"])
def test_who_looks_gives_way_to_the_other_side_which_may_be_on_the_same_core(make):
    words = Words(NEVER)

    def give_way():
        words.arrives = words.looks  # now the other side has the core, and answers

    assert make().ready(words, WORKER.tail, 0, False, None, Clock(), give_way)
    assert words.looks == words.arrives + 1


def test_a_sleeper_is_told_when_the_other_side_rang(bells):
    before = time.monotonic_ns()
    assert bells.caller.announce(0)
    bells.publish(WORKER)
    bells.worker.ring()
    bells.caller.withdraw()
    after = time.monotonic_ns()
    bells.caller.sleep(0, 0)  # there is a record: it does not sleep
    assert not bells.caller.rung
    bells.caller.sleep(1, 1000)
    assert bells.caller.rung and before <= bells.caller.rung_at <= after


def test_a_single_usable_core_always_blocks(monkeypatch, bells):
    monkeypatch.setattr("opexec.ipc.doorbell.usable_cores", lambda: 1)
    for name in STRATEGIES:
        assert isinstance(strategy(name, bells.caller), Block)
    monkeypatch.setattr("opexec.ipc.doorbell.usable_cores", lambda: 2)
    assert [type(strategy(name, bells.caller)) for name in ("adaptive", "block", "spin")] == [
        Adaptive,
        Block,
        Spin,
    ]


def test_an_unknown_strategy_is_named(bells):
    with pytest.raises(ValueError, match="wait is 'polite'; expected one of adaptive, block, spin"):
        strategy("polite", bells.caller)


def test_affinity_counts():
    code = (
        "import os, runpy; runpy.run_path({!r})['install_as_in_a_worker']()\n"
        "from opexec.ipc.doorbell import usable_cores\n"
        "os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})\n"
        "print(usable_cores())".format(os.path.join(os.path.dirname(__file__), "..", "foreign", "run.py"))
    )
    assert int(subprocess.check_output([sys.executable, "-I", "-B", "-c", code])) == 1
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
