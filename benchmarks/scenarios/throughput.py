"""Calls a second with many under way at once: pipelined 64 B calls, opexec against peers, and replicas of a model that computes."""

from __future__ import annotations

import random
from contextlib import ExitStack
from functools import partial

import numpy as np

from benchmarks.contender import REGISTRY, Options, Unavailable
from benchmarks.driver_process import ContenderFailed, Drivers
from benchmarks.grid import SMALLEST
from benchmarks.latency import another_version
from benchmarks.ratios import Spread
from benchmarks.scenarios import loops, opened
from benchmarks.scenarios.result import Bar, Found, Settings, Verdict, number, text

WINDOW = 64
CALLS, QUICK_CALLS = 20_000, 2_000
MUST, AIM, TIMES_BEST_PEER = 40_000, 60_000, 10
CONTENDERS = ("opexec", "pipe", "pipe-bytes", "queue", "executor", "zmq", "loky", "ray")


def measure(settings: Settings) -> Found:
    rates, problems = _pipelined(settings)
    spreads = {name: Spread.of(found) for name, found in rates.items() if found}
    rows = [(f"{REGISTRY[name].title}, {WINDOW} under way", text(spread)) for name, spread in spreads.items()]
    bars = [Bar.of(REGISTRY[name].title, REGISTRY[name].kind, spread) for name, spread in spreads.items()]
    kept = {f"64 B, {name}": found for name, found in rates.items()}
    verdicts = []
    if "opexec" in spreads:
        verdicts.append(
            Verdict.at_least("pipelined `submit`, 64 B, one worker", spreads["opexec"], MUST, AIM, "calls/s")
        )
        peers = [name for name in spreads if REGISTRY[name].kind == "peer"]
        if peers:
            against = [
                ours / max(theirs)
                for ours, *theirs in zip(
                    rates["opexec"], *(rates[name] for name in peers if len(rates[name]) == settings.rounds)
                )
            ]
            verdicts.append(
                Verdict.at_least(
                    "pipelined `submit` against the best peer",
                    Spread.of(against),
                    TIMES_BEST_PEER,
                    TIMES_BEST_PEER,
                )
            )
            kept["against the best peer"] = against
    for title, found in _replicas(settings).items():
        rows.append((title, text(Spread.of(found))))
        kept[title] = found
    return Found(
        title="Many calls under way",
        question=f"How many calls a second, when a caller sends up to {WINDOW} before it takes the first answer; and what do replicas add?",
        heads=("", "calls/s"),
        rows=rows,
        verdicts=verdicts,
        bars=bars,
        axis="64 B calls a second",
        log=True,
        notes=[
            *problems,
            "Peers that send raw bytes of a shape known beforehand into a buffer that the next answer overwrites do less than a call; "
            "none of theirs can fail, time out or be answered late on its own.",
        ],
        rounds=kept,
    )


def _pipelined(settings: Settings) -> tuple[dict[str, list[float]], list[str]]:
    calls = QUICK_CALLS if settings.quick else CALLS
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    problems: dict[str, str] = {}
    order = random.Random(0)
    with Drivers(Options(another_version())) as drivers:
        for name in CONTENDERS:
            try:
                drivers.open(name, name, SMALLEST)
            except (Unavailable, ContenderFailed) as reason:
                problems[name] = str(reason)
        for round_ in range(settings.rounds):
            settings.step(f"throughput: round {round_ + 1} of {settings.rounds}")
            for name in order.sample(CONTENDERS, len(CONTENDERS)):
                if name in problems:
                    continue
                # So that a slow one takes no longer than the others.
                share = calls // 20 if REGISTRY[name].heavy or name in ("executor", "loky") else calls
                try:
                    nanoseconds = drivers.seats[name].stream(share, WINDOW)
                except ContenderFailed as reason:
                    problems[name] = str(reason)
                    continue
                assert nanoseconds is not None
                rates[name].append(share / nanoseconds * 1e9)
        for name in CONTENDERS:
            if name not in problems:
                drivers.close(name)
    return rates, [f"{REGISTRY[name].title} could not be measured: {why}" for name, why in problems.items()]


def _replicas(settings: Settings) -> dict[str, list[float]]:
    """Calls a second of two threads that call one model that computes in Python, with one worker and with two."""
    found: dict[str, list[float]] = {}
    order = random.Random(0)
    x = np.zeros(1, np.float32)
    expected = sum(i % 7 for i in range(20_000))
    with ExitStack() as stack:
        models = {
            count: stack.enter_context(
                opened.load("pure_python", **({"replicas": count} if count > 1 else {}))
            )
            for count in (1, 2)
        }
        for _ in range(settings.rounds):
            for count in order.sample(list(models), len(models)):
                model = models[count]
                if model.infer({"x": x})["y"].tolist() != [expected]:
                    raise ValueError("the model's answer is wrong")
                with loops.no_collector():
                    rate = loops.rate([partial(model.infer, {"x": x})] * 2, settings.seconds)
                title = f"a pure-Python model, two callers, {number(count)} worker{'s' * (count > 1)}"
                found.setdefault(title, []).append(rate)
    return found
