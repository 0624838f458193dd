"""How long a side looks before it sleeps: as long as that pays, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from opexec.ipc.doorbell import Doorbell
from opexec.ipc.ring import CALLER, WORKER
from opexec.ipc.strategies import STRATEGIES, Adaptive, Block, Spin, strategy, usable_cores


@pytest.fixture
def bell(eventfd):
    """The worker's."""
    return Doorbell(memoryview(bytearray(512)).cast("Q"), WORKER, CALLER, eventfd(), eventfd())


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
def test_who_looks_for_long_hears_what_else_would_end_a_sleep(bell, side):
    waits, quiet = side(bell), side()
    for looks in (waits, quiet):
        assert all(wait(looks, Words(3))[0] for _ in range(1000))
    bell.ring_own()
    assert 10 * wait(waits, Words(NEVER))[2] < wait(quiet, Words(NEVER))[2]
    bell.clear()
    assert not bell.stirs()


@pytest.mark.parametrize("looks", [0, 1, 50])
@pytest.mark.parametrize("because", ["it was rung for soon", "looking has paid"])
def test_who_takes_a_core_that_others_want_looks_no_longer_than_usual(because, looks):
    told = iter([False] * looks + [True])
    bell = Quiet()
    waits = Adaptive(False, bell, lambda: next(told))
    usual = wait(CALLS(), Words(NEVER))[1]
    if because == "looking has paid":
        assert all(wait(waits, Words(3))[0] for _ in range(1000))
    else:
        bell.rings(1000)
        waits.slept()
    assert wait(waits, Words(NEVER))[:2] == (False, usual + looks)
    assert next(told, None) is None


def test_who_answers_sleeps_at_once_while_others_want_the_cores():
    crowded = [True]
    waits = Adaptive(True, Quiet(), lambda: crowded[0])
    assert all(wait(waits, Words(3))[0] for _ in range(1000))
    for woke_peer in (False, True):
        ready, looks, took = wait(waits, Words(NEVER), woke_peer)
        assert not ready and looks < 100 and not took
    crowded[0] = False
    assert wait(waits, Words(NEVER))[2] == wait(ANSWERS(), Words(NEVER))[2], "and no longer"


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


def test_a_single_usable_core_always_blocks(monkeypatch, bell):
    monkeypatch.setattr("opexec.ipc.strategies.usable_cores", lambda: 1)
    for name in STRATEGIES:
        assert isinstance(strategy(name, bell), Block)
    monkeypatch.setattr("opexec.ipc.strategies.usable_cores", lambda: 2)
    assert [type(strategy(name, bell)) for name in ("adaptive", "block", "spin")] == [
        Adaptive,
        Block,
        Spin,
    ]


def test_an_unknown_strategy_is_named(bell):
    with pytest.raises(ValueError, match="wait is 'polite'; expected one of adaptive, block, spin"):
        strategy("polite", bell)


def test_affinity_counts():
    code = (
        "import os, runpy; runpy.run_path({!r})['install_as_in_a_worker']()\n"
        "from opexec.ipc.strategies import usable_cores\n"
        "os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})\n"
        "print(usable_cores())".format(os.path.join(os.path.dirname(__file__), "..", "foreign", "run.py"))
    )
    assert int(subprocess.check_output([sys.executable, "-I", "-B", "-c", code])) == 1
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
