"""What each microsecond of a small call goes on: both sides in one thread, step by step, timed and counted."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.contender import Options
from benchmarks.floors.minimal import Minimal
from benchmarks.grid import SMALLEST
from benchmarks.ratios import Spread
from benchmarks.scenarios import loops, one_thread, opened
from benchmarks.scenarios.prices import prices
from benchmarks.scenarios.result import Bar, Found, Settings, number, text

CALLS, QUICK_CALLS = 5_000, 500

_CALLER, _WORKER = "caller", "worker"
_DOES = {
    one_thread.LOOK: (_CALLER, "take the inputs apart; look at the type and the base of each"),
    one_thread.COPY_IN: (
        _CALLER,
        "compare names, dtypes, shapes with the last call's; take a block; copy into it",
    ),
    one_thread.ENTER: (_CALLER, "make the object that stands for the call"),
    one_thread.SEND: (
        _CALLER,
        "take a lock; enter the call among those in flight; pack a record, publish it",
    ),
    one_thread.BESIDE: (
        _CALLER,
        "collect what the user let go of; make the arrays that the answer may well be",
    ),
    one_thread.FIND: (
        _WORKER,
        "unpack the record; take a block back; look up the plan, and the arrays there",
    ),
    one_thread.RUN: (_WORKER, "call the model, which gives its input back"),
    one_thread.FLATTEN: (_WORKER, "take the result apart"),
    one_thread.COPY_OUT: (_WORKER, "compare with the last result; take a block; copy into it"),
    one_thread.REPLY: (_WORKER, "see that the caller knows the plan; pack a record, publish it"),
    one_thread.AFTER: (
        _WORKER,
        "ring, if the caller sleeps; see that the model left its inputs' shapes alone",
    ),
    one_thread.WAIT: (_CALLER, "take the reader's role; look whether an answer has come"),
    one_thread.DELIVER: (_CALLER, "unpack the record; find the call; give its block back; leave the role"),
    one_thread.ARRAYS: (_CALLER, "check that the place is free; note the lease; a dict of the arrays"),
}
_HURRIED = [step for step in one_thread.STEPS if step not in one_thread.UNHURRIED]
_ALL = "one after the other"
_BETWEEN = "the call, to a worker"
_MINIMAL = "F: minimal round trip"


def measure(settings: Settings) -> Found:
    calls = QUICK_CALLS if settings.quick else CALLS
    x = {"x": np.arange(16, dtype=np.float32)}
    rounds: dict[str, list[float]] = {}
    floor = Minimal(Options(platform.python_version()))
    ping = partial(floor.setup(SMALLEST), floor.inputs(SMALLEST))
    try:
        with opened.load("echo", env=None) as model, one_thread.opened(model) as turns:
            for answer in (model.infer(x), turns.call(x)):
                if not np.array_equal(answer["y"], x["x"]):
                    raise ValueError("the model did not give its input back")
            counts = turns.counts(x)
            for number_ in range(settings.rounds):
                settings.step(f"steps: round {number_ + 1} of {settings.rounds}")
                with loops.no_collector():
                    took = turns.times(x, calls)
                    took[_ALL] = sum(took[step] for step in _HURRIED)
                    took[_BETWEEN] = _p50(partial(model.infer, x), settings.seconds / 4)
                    floor.wake()
                    took[_MINIMAL] = _p50(ping, settings.seconds / 4)
                    floor.park()
                    took.update(prices(calls))
                for name, nanoseconds in took.items():
                    rounds.setdefault(name, []).append(nanoseconds / 1e3)
    finally:
        floor.close()
    return _told(rounds, counts)


def _told(rounds: dict[str, list[float]], counts: dict[str, Counter[str]]) -> Found:
    spreads = {name: Spread.of(found) for name, found in rounds.items()}
    parts = (*one_thread.STEPS, _ALL, _BETWEEN, _MINIMAL)
    shares = {
        name: Spread.of([100 * one / whole for one, whole in zip(rounds[name], rounds[_ALL], strict=True)])
        for name in parts
    }
    counts = {**counts, _ALL: sum((counts[step] for step in _HURRIED), Counter())}
    return Found(
        title="The steps of a small call",
        question="What does each microsecond of a 64 B call go on, when both sides are awake and the signature is known?",
        heads=("step", "where", "what it does", "µs", "% of all", "Python functions", "C functions"),
        rows=[
            (
                name,
                _where(name),
                _DOES.get(name, ("", ""))[1],
                text(spreads[name]),
                number(shares[name].median),
                *(str(counts[name][kind]) if name in counts else "" for kind in ("Python", "C")),
            )
            for name in parts
        ],
        bars=[Bar.of(name, _DOES[name][0], spreads[name]) for name in one_thread.STEPS],
        axis="µs",
        notes=[
            "In one thread the two sides take turns, with everything in the nearest cache. What a call to a worker takes beyond its steps is the way "
            "from one core to the other, there and back, and looking until something came. What a side does meanwhile, once its record is published, "
            "costs a call nothing while the other side is longer at it.",
            "Once each, in ns: "
            + ", ".join(
                f"{name} {spread.median * 1e3:.0f}" for name, spread in spreads.items() if name not in parts
            )
            + ".",
        ],
        rounds=rounds,
    )


def _where(step: str) -> str:
    side = _DOES.get(step, ("",))[0]
    return f"{side}, meanwhile" if step in one_thread.UNHURRIED else side


def _p50(call: Callable[[], object], seconds: float) -> float:
    return float(np.median(loops.durations(call, seconds)))
