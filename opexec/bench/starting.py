"""From nothing to warm: load, first call, warming up."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable

from ..model import Model
from . import costs
from .inputs import InputsAsked
from .report import Settings, Start
from .subject import Arrays, Subject, attempt
from .warming import WarmUp


def open_all(
    subjects: list[Subject],
    asked: InputsAsked,
    settings: Settings,
    opened: list[Model],
    report: Callable[[str], None],
) -> None:
    """Make each subject warm, or have its `error` say why it is not. `opened` gets the models that are then to be closed."""
    done: dict[int, Subject] = {}
    for subject in subjects:
        setup = subject.variant.setup
        first = done.setdefault(id(setup), subject)
        if first is subject:
            attempt(subject, functools.partial(_start, subject, asked, settings, opened, report))
        elif first.model is None:
            subject.error = first.error
        else:
            attempt(subject, functools.partial(_join, subject, first, asked, settings, report))


def _start(
    subject: Subject,
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
    subject: Subject,
    first: Subject,
    asked: InputsAsked,
    settings: Settings,
    report: Callable[[str], None],
) -> None:
    """A further variant of a setup that is loaded."""
    assert first.model is not None and first.start is not None
    subject.model, subject.grown = first.model, first.grown
    _give_inputs(subject, first.model, asked, settings)
    _warm(subject, list(first.start.loads), [_first_call(first.model, subject.inputs)], settings, report)


def _give_inputs(subject: Subject, model: Model, asked: InputsAsked, settings: Settings) -> None:
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
    subject: Subject,
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
