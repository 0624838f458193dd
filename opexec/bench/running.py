"""A run: load, first call, warming up, then rounds in which every variant has a block of calls, in an order drawn for that round."""

from __future__ import annotations

import datetime
import functools
import gc
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OpexecError, SpecError
from ..ipc import VERSION
from ..isolated import IsolatedModel
from ..model import Model
from ..spec import TensorSpec, canonical_dtype
from ..timing import CallTimes
from . import costs, inputs, loops
from .machine import machine_facts, pace
from .report import Costs, Report, Result, Round, Settings, Start
from .setups import Variant, labels, setups, variants
from .statistics import Latency
from .warming import WarmUp

Arrays = Mapping[str, np.ndarray[Any, Any]]
ModelGiven = str | os.PathLike[str] | Mapping[str, Any]

_PRIMING_CALLS = 1
_PRIMING_SECONDS = 0.005
_TIMED_BLOCKS, _LEAST_TIMED = 4, 3
"""Calls whose steps are timed last for so many times `Settings.seconds` at most, but there are three at least."""


@dataclass(frozen=True)
class InputsAsked:
    """What the command line or a program says about inputs; `inputs.make` says what each means."""

    given: Mapping[str, Any] = field(default_factory=dict)
    """Arrays, or a function of the input's spec (None where there is none) that makes one."""
    shapes: Mapping[str, TensorSpec] = field(default_factory=dict)
    seed: int = 0

    def make(self, model: Model, variant: Variant) -> dict[str, np.ndarray[Any, Any]]:
        specs = {spec.name: spec for spec in model.inputs or ()}
        given = {
            name: value(specs.get(name)) if callable(value) else value for name, value in self.given.items()
        }
        return inputs.make(
            model.inputs,
            given=given,
            sizes=variant.sizes,
            batch=variant.batch,
            shapes=self.shapes,
            seed=self.seed,
        )


@dataclass
class _Subject:
    """A variant while it is measured."""

    label: str
    variant: Variant
    model: Model | None = None
    inputs: Arrays = field(default_factory=dict)
    error: str | None = None
    runner: dict[str, str] | None = None
    start: Start | None = None
    grown: int | None = None
    pids: tuple[int, int] = (0, 0)
    blocks: list[_Block] = field(default_factory=list)
    timed: tuple[CallTimes, ...] = ()
    memory: int | None = None
    shared_memory: int = 0

    @property
    def running(self) -> bool:
        return self.error is None


@dataclass(frozen=True)
class _Block:
    timed: loops.Timed
    spent: costs.Counters
    pace: float
    idle: np.ndarray[Any, Any]


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
    subjects = [_Subject(label, variant) for label, variant in zip(labels(asked), asked)]
    opened: list[Model] = []
    try:
        _open_all(subjects, inputs_asked, settings, opened, report)
        _rounds(subjects, settings, report)
        for subject in subjects:
            if subject.running:
                report(f"timing the steps of calls: {subject.label}")
                _attempt(subject, functools.partial(_finish, subject, subjects, settings))
    finally:
        for model in opened:
            model.close()
    return Report(VERSION, date, machine, settings, tuple(_result(subject) for subject in subjects))


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


# ---- from nothing to warm


def _open_all(
    subjects: list[_Subject],
    asked: InputsAsked,
    settings: Settings,
    opened: list[Model],
    report: Callable[[str], None],
) -> None:
    done: dict[int, _Subject] = {}
    for subject in subjects:
        setup = subject.variant.setup
        first = done.setdefault(id(setup), subject)
        if first is subject:
            _attempt(subject, functools.partial(_start, subject, asked, settings, opened, report))
        elif first.model is None:
            subject.error = first.error
        else:
            _attempt(subject, functools.partial(_join, subject, first, asked, settings, report))


def _start(
    subject: _Subject,
    asked: InputsAsked,
    settings: Settings,
    opened: list[Model],
    report: Callable[[str], None],
) -> None:
    setup = subject.variant.setup
    loads, firsts = [], []
    # In process, what was imported stays: there is one start from nothing only.
    starts = settings.starts if setup.isolated else 1
    before = costs.resident_here()
    for number in range(1, starts + 1):
        report(f"loading {subject.label}" + f", {number} of {starts}" * (starts > 1))
        began = time.perf_counter()
        model = setup.open()
        loads.append(time.perf_counter() - began)
        opened.append(model)
        _give_inputs(subject, model, asked, settings)
        firsts.append(_first_call(model, subject.inputs))
        if number < starts:
            subject.inputs = {}
            model.close()
            opened.remove(model)
    subject.model = model
    subject.grown = None if setup.isolated else max(costs.resident_here() - before, 0)
    _warm(subject, loads, firsts, settings, report)


def _join(
    subject: _Subject,
    first: _Subject,
    asked: InputsAsked,
    settings: Settings,
    report: Callable[[str], None],
) -> None:
    """A further variant of a setup that is loaded."""
    assert first.model is not None and first.start is not None
    subject.model, subject.grown = first.model, first.grown
    _give_inputs(subject, first.model, asked, settings)
    _warm(subject, list(first.start.loads), [_first_call(first.model, subject.inputs)], settings, report)


def _give_inputs(subject: _Subject, model: Model, asked: InputsAsked, settings: Settings) -> None:
    made = asked.make(model, subject.variant)
    if settings.shared:
        for name, array in made.items():
            if array.dtype.kind not in "OSUT":
                shared = model.empty(name, array.shape, array.dtype)
                shared[...] = array
                made[name] = shared
    subject.inputs = made


def _first_call(model: Model, arrays: Arrays) -> float:
    began = time.perf_counter()
    model.infer(arrays)
    return time.perf_counter() - began


def _warm(
    subject: _Subject,
    loads: list[float],
    firsts: list[float],
    settings: Settings,
    report: Callable[[str], None],
) -> None:
    model, arrays = subject.model, subject.inputs
    assert model is not None
    report(f"warming up {subject.label}")
    warming, clock = WarmUp(), time.perf_counter
    end = clock() + settings.warm_up
    while not warming.warm and clock() < end:
        began = clock()
        model.infer(arrays)
        warming.add(clock() - began)
    worker = model.workers[0]
    subject.runner = {
        "framework": worker.framework,
        "framework_version": worker.framework_version,
        "python": worker.python,
        "numpy": worker.numpy,
        "interpreter": worker.interpreter,
    }
    subject.pids = (os.getpid(), worker.pid or 0)
    subject.start = Start(tuple(loads), tuple(firsts), warming.calls, warming.seconds, warming.warm)


# ---- rounds


def _rounds(subjects: list[_Subject], settings: Settings, report: Callable[[str], None]) -> None:
    order = random.Random(settings.seed)
    for number in range(1, settings.rounds + 1):
        running = [subject for subject in subjects if subject.running]
        order.shuffle(running)
        try:
            for place, subject in enumerate(running, 1):
                report(f"round {number} of {settings.rounds}: {subject.label} ({place} of {len(running)})")
                _attempt(subject, functools.partial(_add_block, subject, settings))
        except KeyboardInterrupt:
            if number == 1:
                raise
            for subject in subjects:
                del subject.blocks[number - 1 :]
            return


def _add_block(subject: _Subject, settings: Settings) -> None:
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
    subject.blocks.append(_Block(timed, spent, speed, idle))


def _finish(subject: _Subject, subjects: Sequence[_Subject], settings: Settings) -> None:
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


def _attempt(subject: _Subject, step: Callable[[], object]) -> None:
    try:
        step()
    except OpexecError as error:
        subject.error = str(error).partition("\n\n")[0]


# ---- what is told


def _result(subject: _Subject) -> Result:
    blocks = subject.blocks
    latency = after_idle = costs_found = throughput = None
    rounds = tuple(map(_round, blocks))
    if blocks:
        latency = Latency.of(np.concatenate([block.timed.nanoseconds for block in blocks]))
        idle = np.concatenate([block.idle for block in blocks])
        after_idle = Latency.of(idle) if len(idle) else None
        throughput = float(np.median([each.throughput for each in rounds]))
        costs_found = _costs(subject)
    return Result(
        label=subject.label,
        axes=subject.variant.axes,
        inputs={name: _described(array) for name, array in subject.inputs.items()},
        runner=subject.runner,
        error=subject.error,
        start=subject.start,
        latency=latency,
        after_idle=after_idle,
        rounds=rounds,
        throughput=throughput,
        never_made=sum(len(block.timed.nanoseconds) - block.timed.made for block in blocks),
        costs=costs_found,
        timed=subject.timed,
        pids=subject.pids,
    )


def _round(block: _Block) -> Round:
    times = block.timed.nanoseconds / 1e9
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    throughput = block.timed.made / block.timed.elapsed
    return Round(p50, p90, p99, float(times.mean()), throughput, block.pace)


def _costs(subject: _Subject) -> Costs:
    made = max(sum(block.timed.made for block in subject.blocks), 1)
    waiting = sum(block.timed.waiting for block in subject.blocks)
    worker = [block.spent.worker for block in subject.blocks]
    return Costs(
        caller_cpu=max(sum(block.spent.caller for block in subject.blocks) - waiting, 0.0) / made,
        worker_cpu=None if None in worker else sum(worker) / made,  # type: ignore[arg-type]
        copied_in=sum(block.spent.copied_in for block in subject.blocks) / made,
        copied_out=sum(block.spent.copied_out for block in subject.blocks) / made,
        memory=subject.memory,
        shared_memory=subject.shared_memory,
    )


def _described(array: Any) -> str:
    array = np.asarray(array)
    try:
        dtype = canonical_dtype(array.dtype)
    except SpecError:
        dtype = "text" if array.dtype.kind == "O" else str(array.dtype)
    return f"{dtype}[{', '.join(map(str, array.shape))}]"
