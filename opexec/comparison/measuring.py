"""Running several models of one problem on the same data: answers, latency and memory.

All models are loaded at the same time. First each answers every sample once, which is not timed; then come rounds in which every sample
goes to every model, one call after another, and each round begins with another model: what disturbs the machine disturbs all of them
alike. The latency is that of `Model.infer`, from the caller's arrays to the caller's arrays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from ..errors import OpexecError
from ..model import Model
from ..problem import Fit, Problem
from .answers import Answers, Metric
from .implementing import asked_outputs
from .runner import runner_of
from .samples import Sample, SampleSource

Report = Callable[[str], None]

PERCENTILES = (50, 90, 99)


@dataclass
class Contender:
    """One model and what was found of it."""

    label: str
    source: str
    model: Model | None = None
    loading: float | None = None
    """Seconds from the call of `load` to its return."""
    runner: dict[str, str] | None = None
    """What runs it, as `runner_of` tells."""
    fit: Fit | None = None
    error: str | None = None
    """Why it was left out, from then on."""
    answers: Answers = field(default_factory=Answers)
    seconds: list[float] = field(default_factory=list)
    """One entry a timed call."""
    resident: int = 0
    """Most bytes that its worker, with its children, had in memory, looked at once a round; shared memory and libraries are counted in."""
    own: int = 0
    """The same without what it shares with other processes."""

    def percentile(self, percent: float) -> float | None:
        """Of the latency, in seconds."""
        return float(np.percentile(self.seconds, percent)) if self.seconds else None


@dataclass(frozen=True)
class Comparison:
    problem: Problem
    contenders: tuple[Contender, ...]
    samples: int
    rounds: int
    reference: str
    """What answers are held against: ``"expected"``, ``"first model"``, or ``"both"`` where only some outputs are known."""
    metrics: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every model went through all of it."""
        return all(contender.error is None for contender in self.contenders)


def compare(
    problem: Problem,
    models: Sequence[tuple[str, str, Callable[[], Model]]],
    samples: Sequence[SampleSource],
    *,
    metrics: Mapping[str, Metric] | None = None,
    rounds: int = 20,
    report: Report = lambda step: None,
) -> Comparison:
    """Compare `models`: a label, a source for the record, and a function that loads the model, which is closed at the end.

    A model that cannot be loaded, does not implement the problem or fails in a call is left out from there on, and its `error` says why;
    but where answers are held against the first one, that must not fail. `report` is told the steps.

    Raises OpexecError, for samples that cannot be read, for a metric that fails, for the first model.
    """
    contenders = [Contender(label, source) for label, source, _ in models]
    try:
        for contender, (_, _, open_model) in zip(contenders, models):
            report(f"loading {contender.label}")
            _load(problem, contender, open_model)
        reference = _answer_all(problem, contenders, samples, metrics or {}, report)
        _time_all(contenders, samples, rounds, report)
    finally:
        for contender in contenders:
            if contender.model is not None:
                contender.model.close()
    return Comparison(problem, tuple(contenders), len(samples), rounds, reference, tuple(metrics or ()))


def _load(problem: Problem, contender: Contender, open_model: Callable[[], Model]) -> None:
    began = time.perf_counter()
    try:
        contender.model = open_model()
        contender.loading = time.perf_counter() - began
        contender.runner = runner_of(contender.model)
        contender.fit = problem.check(contender.model.inputs, contender.model.outputs)
    except OpexecError as error:
        _leave_out(contender, error)
        return
    if not contender.fit.ok:
        contender.error = f"does not implement the problem: {'; '.join(map(str, contender.fit.differences))}"
        contender.model.close()


def _running(contenders: Sequence[Contender]) -> list[tuple[Contender, Model]]:
    return [(each, each.model) for each in contenders if each.model is not None and each.error is None]


def _answer_all(
    problem: Problem,
    contenders: Sequence[Contender],
    samples: Sequence[SampleSource],
    metrics: Mapping[str, Metric],
    report: Report,
) -> str:
    wanted = {spec.name for spec in problem.outputs}
    kinds = set()
    for number, source in enumerate(samples, 1):
        report(f"answers: sample {number} of {len(samples)}")
        sample = source.read()
        known = wanted & sample.expected.keys()
        kinds.add("expected" if known == wanted else "both" if known else "first model")
        _answer(problem, contenders, source, sample, metrics, complete=known == wanted)
    return kinds.pop() if len(kinds) == 1 else "both"


def _answer(
    problem: Problem,
    contenders: Sequence[Contender],
    source: SampleSource,
    sample: Sample,
    metrics: Mapping[str, Metric],
    complete: bool,
) -> None:
    """One sample, answered by every model. `complete`: every output is known, so that nothing depends on the first model."""
    right = dict(sample.expected)
    first = contenders[0]
    for contender in contenders:
        if contender.error is None and contender.model is not None:
            try:
                got = asked_outputs(problem, contender.model, sample.inputs)
            except OpexecError as error:
                _leave_out(contender, error, source.name)
            else:
                if contender is first:
                    # A model is not held against itself: it has differences only where the right outputs are known.
                    contender.answers.add(right, got)
                    right = {**{name: array.copy() for name, array in got.items()}, **right}
                else:
                    contender.answers.add(right, got)
                for name, metric in metrics.items():
                    contender.answers.measure(name, metric, right, got, source.name)
                del got
        if contender is first and first.error is not None and not complete:
            raise OpexecError(
                f"the answers of all models are held against those of the first one, {first.label}, which failed: {first.error}"
            )


def _time_all(
    contenders: Sequence[Contender], samples: Sequence[SampleSource], rounds: int, report: Report
) -> None:
    for number in range(rounds):
        report(f"round {number + 1} of {rounds}")
        for source in samples:
            inputs = source.read().inputs
            running = _running(contenders)
            begin = number % max(len(running), 1)
            for contender, model in running[begin:] + running[:begin]:
                try:
                    contender.seconds.append(_timed(model, inputs))
                except OpexecError as error:
                    _leave_out(contender, error, source.name)
        for contender, model in _running(contenders):
            _weigh(contender, model)


def _timed(model: Model, inputs: Mapping[str, Any]) -> float:
    began = time.perf_counter()
    outputs = model.infer(inputs)
    seconds = time.perf_counter() - began
    del outputs
    return seconds


def _weigh(contender: Contender, model: Model) -> None:
    resident = own = 0
    for worker in model.workers:
        try:
            process = psutil.Process(worker.pid)
            for each in (process, *process.children(recursive=True)):
                memory = each.memory_full_info()
                resident += memory.rss
                own += memory.uss
        except psutil.Error:  # it ended meanwhile: the next call says how
            return
    contender.resident = max(contender.resident, resident)
    contender.own = max(contender.own, own)


def _leave_out(contender: Contender, error: OpexecError, sample: str | None = None) -> None:
    text = str(error).partition("\n\n")[0]
    contender.error = text if sample is None else f"{sample}: {text}"
