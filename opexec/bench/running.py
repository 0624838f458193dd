"""A run: every variant is started, then come rounds in which each has a block of calls, in an order drawn for that round."""

from __future__ import annotations

import datetime
import functools
import gc
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..connection.timing import CallTimes
from ..ipc import VERSION
from ..isolated import IsolatedModel
from ..model import Model
from ..spec import TensorSpec
from . import costs, loops
from .inputs import InputsAsked
from .machine import machine_facts, pace
from .report import Report, Settings
from .results import result
from .setups import Variant, labels, setups, variants
from .starting import open_all
from .subject import Block, Subject, attempt

ModelGiven = str | os.PathLike[str] | Mapping[str, Any]

_PRIMING_CALLS = 1
_PRIMING_SECONDS = 0.005
_TIMED_BLOCKS, _LEAST_TIMED = 4, 3
"""Calls whose steps are timed last for so many times `Settings.seconds` at most, but there are three at least."""


def run(
    models: ModelGiven | Sequence[ModelGiven],
    *,
    envs: Sequence[Any] = (),
    in_process: bool = False,
    replicas: Sequence[int] = (1,),
    callers: Sequence[int] = (1,),
    batches: Sequence[int] = (),
    sizes: Mapping[str, Sequence[int]] | None = None,
    given: Mapping[str, Any] | None = None,
    shapes: Mapping[str, TensorSpec] | None = None,
    settings: Settings | None = None,
    report: Callable[[str], None] = lambda step: None,
    **options: Any,
) -> Report:
    """Measure the latency of models, side by side in one run.

    `models`: what `opexec.load` takes as source, or mappings of its arguments, the source among them; one or more. `options` are arguments of
    `load` for all of them.

    What is put side by side is every combination of: models; `envs` that each runs in; `in_process`, which puts each model into this process
    too; numbers of `replicas`; numbers of `callers`, threads that call at the same time; `batches`, sizes of the first axis of the
    inputs; `sizes`, of other symbols of the specs, such as ``{"length": [16, 256]}``.

    `given`: inputs to call with; those that are not given are made from the specs (`opexec.bench.inputs` says how), with `shapes` where
    these leave something open.

    `report` is told the steps. Ctrl-C ends the run early; complete rounds are reported, if there are any.

    `settings`:

    - `rounds`, in each of which every variant has a block of calls of so many `seconds`; the order is drawn anew for each.
    - `rate`: calls a second of all callers together, in an open loop; None for a closed one (`opexec.bench.loops` says what that means).
    - `idle`, `idle_calls`: after each block so many calls with a pause of `idle` seconds before each.
    - `starts`: how many times a worker is started and called for the first time.
    - `warm_up`: seconds that warming up may last (`opexec.bench.warming` has the rule).
    - `timed_calls`: at the end, calls whose every step is timed; fewer where they take longer than four times `seconds`.
    - `shared`: inputs lie in arrays of `Model.empty`, so that nothing is copied.
    - `seed`: of inputs, orders and intervals.

    A variant that fails is left out from there on, and its `error` says why. Raises ValueError and TypeError for arguments that cannot be.
    """
    settings = settings or Settings()
    several = [models] if isinstance(models, str | os.PathLike | Mapping) else list(models)
    named = _named(several, options)
    loaded = setups(named, [envs] * len(named), in_process, replicas)
    return measure(
        variants(loaded, callers, batches or (None,), sizes or {}),
        InputsAsked(given or {}, shapes or {}, settings.seed),
        settings,
        report,
    )


def measure(
    asked: Sequence[Variant],
    inputs_asked: InputsAsked,
    settings: Settings,
    report: Callable[[str], None] = lambda step: None,
) -> Report:
    """`run` for variants that were put together by hand."""
    if not asked:
        raise ValueError("expected at least one model")
    for variant in asked:
        if (
            variant.callers < 1
            or variant.setup.replicas < 1
            or (variant.batch is not None and variant.batch < 1)
        ):
            raise ValueError(f"callers, replicas and batch sizes are 1 or more; got {variant.axes}")
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    machine = machine_facts()
    subjects = [Subject(label, variant) for label, variant in zip(labels(asked), asked)]
    opened: list[Model] = []
    try:
        open_all(subjects, inputs_asked, settings, opened, report)
        _rounds(subjects, settings, report)
        for subject in subjects:
            if subject.running:
                report(f"timing the steps of calls: {subject.label}")
                attempt(subject, functools.partial(_finish, subject, subjects, settings))
    finally:
        for model in opened:
            model.close()
    return Report(VERSION, date, machine, settings, tuple(result(subject) for subject in subjects))


def _named(models: Sequence[ModelGiven], options: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for model in models:
        arguments = {**options, **(model if isinstance(model, Mapping) else {"source": os.fspath(model)})}
        if "source" not in arguments:
            raise ValueError(f"expected the argument 'source' of load among {sorted(arguments)}")
        found.append((Path(os.fspath(arguments["source"])).name, arguments))
    counts = [name for name, _ in found]
    return [
        (f"{name} ({place})" if counts.count(name) > 1 else name, arguments)
        for place, (name, arguments) in enumerate(found, 1)
    ]


# ---- rounds


def _rounds(subjects: list[Subject], settings: Settings, report: Callable[[str], None]) -> None:
    order = random.Random(settings.seed)
    for number in range(1, settings.rounds + 1):
        running = [subject for subject in subjects if subject.running]
        order.shuffle(running)
        try:
            for place, subject in enumerate(running, 1):
                report(f"round {number} of {settings.rounds}: {subject.label} ({place} of {len(running)})")
                attempt(subject, functools.partial(_add_block, subject, settings))
        except KeyboardInterrupt:
            if number == 1:
                raise
            for subject in subjects:
                del subject.blocks[number - 1 :]
            return


def _add_block(subject: Subject, settings: Settings) -> None:
    variant, model, arrays = subject.variant, subject.model, subject.inputs
    assert model is not None
    gc.collect()
    speed = pace()
    # The caches, and the worker's way of waiting, are the last variant's still.
    loops.closed(model.infer, arrays, 1, _PRIMING_SECONDS, _PRIMING_CALLS)
    before = costs.Counters.of(model, variant.setup.isolated)
    if settings.rate is None:
        timed = loops.closed(model.infer, arrays, variant.callers, settings.seconds)
    else:
        timed = loops.open_at(model.infer, arrays, variant.callers, settings.rate, settings.seconds)
    spent = costs.Counters.of(model, variant.setup.isolated).minus(before)
    idle = loops.after_idle(model.infer, arrays, settings.idle, settings.idle_calls)
    subject.blocks.append(Block(timed, spent, speed, idle))


def _finish(subject: Subject, subjects: Sequence[Subject], settings: Settings) -> None:
    """What is asked for once, at the end."""
    model, variant = subject.model, subject.variant
    assert model is not None
    if variant.setup.isolated:
        # One caller makes these calls, so further numbers of callers would tell the same again.
        alike = [each for each in subjects if replace(each.variant, callers=1) == replace(variant, callers=1)]
        if alike[0] is subject and isinstance(
            model, IsolatedModel
        ):  # a call that is joined with others has no times of its own
            timed: list[CallTimes] = []
            end = time.perf_counter() + _TIMED_BLOCKS * settings.seconds
            while len(timed) < min(settings.timed_calls, _LEAST_TIMED) or (
                len(timed) < settings.timed_calls and time.perf_counter() < end
            ):
                timed.append(model.infer_timed(subject.inputs)[1])
            subject.timed = tuple(timed)
        subject.memory = costs.peak_memory(costs.pids(model))
    else:
        subject.memory = subject.grown
    subject.shared_memory = model.stats().shared_memory
