"""No wake-up is lost, a nap is rung for once, and whatever interrupts a sleep leaves the bell ready for the next one."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import threading
import time

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from opexec.ipc.doorbell import Doorbell
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


# What a side says of itself


def test_either_side_asks_the_other_to_sleep_at_once(bells):
    for one, other, side in ((bells.caller, bells.worker, CALLER), (bells.worker, bells.caller, WORKER)):
        for crowded in (False, True, True, False):
            one.tell_crowded(crowded)
            assert other.is_told_crowded() is crowded
            assert not one.is_told_crowded()
        bells.words[side.crowded] = (1 << 64) - 1
        assert other.is_told_crowded() is True, "whatever a broken side writes"
        bells.words[side.crowded] = 0


def test_who_was_asked_to_sleep_is_not_roused_ahead_of_a_record(bells):
    assert bells.worker.announce(0)
    bells.caller.tell_crowded(True)
    bells.caller.rouse()
    assert not readable(bells.worker.fd)
    assert bells.caller.ring() and readable(bells.worker.fd), "for a record it is"
    bells.worker.clear()
    bells.worker.withdraw()
    assert bells.worker.announce(0)
    bells.caller.tell_crowded(False)
    bells.caller.rouse()
    assert readable(bells.worker.fd)


@pytest.mark.parametrize("said", [False, True])
def test_ctrl_c_between_saying_and_noting_it_leaves_nothing_that_cannot_be_taken_back(
    eventfd, interruptions, said
):
    def prepare():
        bells = Bells((eventfd(), eventfd()))
        bells.caller.tell_crowded(not said)
        return bells

    for bells in interruptions(prepare, lambda bells: bells.caller.tell_crowded(said)):
        bells.caller.tell_crowded(False)
        assert not bells.worker.is_told_crowded()


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
