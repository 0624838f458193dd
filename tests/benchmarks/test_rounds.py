"""The harness interleaves as it promises, and what fails is left out and said."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import grid
from benchmarks.contender import REGISTRY, Unavailable
from benchmarks.driver_process import ContenderFailed
from benchmarks.grid import BUSY, IDLE, SMALLEST, START, Case
from benchmarks.rounds import Rounds, units_of
from benchmarks.workloads import Workload

ROUNDS = 3
SETTINGS = grid.settings(quick=True, rounds=ROUNDS)
CASES = grid.cases((64, 4096))


class Recorder:
    """A backend that writes down what it is asked; each measurement takes one nanosecond more than the last."""

    def __init__(self, unavailable=(), dies=()):
        self.events = []
        self.is_open = {}
        self._unavailable = unavailable
        self._dies = dies
        self._clock = 0

    def open(self, seat, contender, workload):
        if contender in self._unavailable:
            raise Unavailable("not here")
        assert seat not in self.is_open, f"{seat} is open already"
        self.is_open[seat] = (contender, workload)
        return {"version": "1"}

    def measure(self, seat, plan):
        if seat in self._dies:
            self.is_open.pop(seat)
            raise ContenderFailed(f"{seat} died")
        self._clock += 1
        self.events.append((seat, *self.is_open[seat], plan, self._clock))
        return np.array([self._clock])

    def close(self, seat):
        self.is_open.pop(seat)


def seats_measured(recorder):
    return [event[0] for event in recorder.events]


def measured_floors(unit):
    return unit.split()[0]


@pytest.fixture(scope="module")
def recorded():
    recorder = Recorder()
    return recorder, Rounds(CASES, SETTINGS, recorder).run()


def test_every_case_is_measured_once_in_every_round(recorded):
    _, outcome = recorded
    found = sorted((measurement.round, measurement.case) for measurement in outcome.measurements)
    assert found == sorted((number, case) for number in range(ROUNDS) for case in CASES)
    assert outcome.rounds == ROUNDS


def test_floors_are_measured_right_before_each_case_and_nothing_in_between(recorded):
    recorder, outcome = recorded
    events = iter(recorder.events)
    for measurement in outcome.measurements:
        units = units_of(measurement.case)
        for unit in units:
            seat, _, _, _, clock = next(events)
            assert seat == measured_floors(unit)
            assert measurement.units[unit] == clock
        seat, _, workload, _, clock = next(events)
        assert (seat, workload) == (measurement.case.contender, measurement.case.workload)
        assert measurement.samples.tolist() == [clock]
    assert next(events, None) is None


def test_each_mode_has_its_floors():
    assert units_of(Case(SMALLEST, "pipe", BUSY)) == ("S", "F", "E", "M")
    assert units_of(Case(SMALLEST, "pipe", IDLE)) == ("S", "F", "E", "M", "E idle")
    assert units_of(Case(SMALLEST, "opexec-empty", BUSY)) == ("S", "F", "E", "M", "R")
    assert units_of(Case(SMALLEST, "opexec-load", START)) == ("B",)


def test_floors_are_measured_busy_but_for_the_one_after_idle(recorded):
    recorder, _ = recorded
    events = iter(recorder.events)
    for measurement in recorded[1].measurements:
        for unit in units_of(measurement.case):
            mode = {"E idle": IDLE, "B": START}.get(unit, BUSY)
            assert next(events)[3] == SETTINGS.floor_plans[mode]
        assert next(events)[3] == SETTINGS.case_plans[measurement.case.mode]


def test_copying_is_measured_with_the_bytes_of_the_case(recorded):
    recorder, _ = recorded
    around = None
    for seat, _, workload, _, _ in reversed(recorder.events):
        if seat == "M":
            assert workload == around
        elif REGISTRY.get(seat) and REGISTRY[seat].kind != "floor":
            around = workload


def test_opexec_as_a_unit_is_the_smallest_call_in_a_process_of_its_own(recorded):
    recorder, _ = recorded
    assert {event[1:3] for event in recorder.events if event[0] == "R"} == {("opexec", SMALLEST)}


def test_neighbours_change_from_round_to_round(recorded):
    _, outcome = recorded
    orders = [
        [measurement.case for measurement in outcome.measurements if measurement.round == number]
        for number in range(ROUNDS)
    ]
    assert orders[0] != orders[1] != orders[2]


def test_the_order_is_drawn_from_the_seed():
    def order(seed):
        return [m.case for m in Rounds(CASES, SETTINGS, Recorder(), seed=seed).run().measurements]

    assert order(1) == order(1) != order(2)


def test_all_is_closed_at_the_end(recorded):
    recorder, _ = recorded
    assert recorder.is_open == {}


def test_a_peer_that_is_not_available_is_said_and_does_not_stop_the_others():
    outcome = Rounds(CASES, SETTINGS, Recorder(unavailable=["zmq"])).run()
    assert outcome.unavailable == {"zmq": "not here"}
    assert {m.case for m in outcome.measurements} == {case for case in CASES if case.contender != "zmq"}


def test_a_contender_that_dies_is_said_and_not_tried_again():
    recorder = Recorder(dies=["pipe"])
    outcome = Rounds(CASES, SETTINGS, recorder).run()
    assert outcome.failures == {"pipe": "pipe died"}
    assert {m.case for m in outcome.measurements} == {case for case in CASES if case.contender != "pipe"}
    assert recorder.is_open == {}


def test_a_floor_that_dies_leaves_the_cases_without_its_unit():
    recorder = Recorder(dies=["F"])
    outcome = Rounds(CASES, SETTINGS, recorder).run()
    assert outcome.failures == {"F": "F died"}
    assert {m.case for m in outcome.measurements} == set(CASES)
    assert not any("F" in m.units for m in outcome.measurements)
    assert recorder.is_open == {}


def test_an_interrupted_run_keeps_its_complete_rounds():
    first = Recorder()
    Rounds(CASES, grid.settings(quick=True, rounds=1), first).run()

    class Interrupted(Recorder):
        def open(self, seat, contender, workload):
            if len(self.events) > len(first.events) + 20:  # in the second round
                raise KeyboardInterrupt
            return super().open(seat, contender, workload)

    rounds = Rounds(CASES, SETTINGS, Interrupted())
    with pytest.raises(KeyboardInterrupt):
        rounds.run()
    assert 1 <= rounds.outcome.rounds < ROUNDS
    assert len(rounds.outcome.measurements) == rounds.outcome.rounds * len(CASES)


def test_patterns_choose_cases():
    chosen = grid.cases((64, 4096), ["pipe/tiny/*/busy", "zmq/echo/4096/idle"])
    assert chosen == [
        Case(Workload("tiny", 64), "pipe", BUSY),
        Case(Workload("tiny", 4096), "pipe", BUSY),
        Case(Workload("echo", 4096), "zmq", IDLE),
    ]


def test_a_full_run_has_nine_rounds_and_all_sizes():
    full = grid.settings()
    assert full.rounds >= 9
    assert full.sizes == (64, 4096, 602_112, 6_912_000, 67_108_864)
    assert full.case_plans[IDLE].pause_ns == full.floor_plans[IDLE].pause_ns == 5_000_000
