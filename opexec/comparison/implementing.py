"""Whether a model implements a problem: what its specs say, and what it answers to the problem's test data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import OpexecError, SpecError
from ..model import Model
from ..problem import Fit, Problem
from ..problem_data import Case, compare_outputs
from ..spec import TensorSpec, bind_inputs, bind_outputs


@dataclass(frozen=True)
class Verdict:
    """What is known of one model."""

    fit: Fit
    """What its specs say."""
    cases: tuple[tuple[str, ...], ...] | None = None
    """For each case of the problem's test data, what was wrong with the answer: nothing for a right one. None: it was not run."""

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the problem: neither the specs nor an answer."""
        return self.fit.ok and not any(self.cases or ())

    @property
    def certain(self) -> bool:
        """Whether the specs alone prove it, and no answer contradicts them."""
        return self.ok and self.fit.proven


def by_specs(
    problem: Problem, inputs: Iterable[TensorSpec] | None, outputs: Iterable[TensorSpec] | None
) -> Verdict:
    """The verdict on a model that is not run."""
    return Verdict(problem.check(inputs, outputs))


def by_running(problem: Problem, model: Model, *, rtol: float = 1e-5, atol: float = 1e-8) -> Verdict:
    """The verdict on a loaded model, which answers every case unless its specs contradict the problem already.

    What calls raise is told as the answer's fault.
    """
    fit = problem.check(model.inputs, model.outputs)
    if not fit.ok:
        return Verdict(fit)
    return Verdict(fit, tuple(_answer(problem, model, case, rtol, atol) for case in problem.cases))


def _answer(problem: Problem, model: Model, case: Case, rtol: float, atol: float) -> tuple[str, ...]:
    try:
        outputs = asked_outputs(problem, model, case.inputs)
    except OpexecError as error:
        return (str(error).partition("\n\n")[0],)
    return tuple(compare_outputs(case.outputs or {}, outputs, rtol=rtol, atol=atol))


def asked_outputs(
    problem: Problem, model: Model, inputs: Mapping[str, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of a call that the problem asks for, checked against its specs. Raises SpecError and what the call raises."""
    symbols = bind_inputs(
        problem.inputs,
        {name: (np.asarray(array).dtype, np.asarray(array).shape) for name, array in inputs.items()},
    )
    given = model.infer(inputs)
    wanted = {spec.name for spec in problem.outputs}
    outputs = {name: np.asarray(value) for name, value in given.items() if name in wanted}
    try:
        bind_outputs(
            problem.outputs,
            {name: (array.dtype, array.shape) for name, array in outputs.items()},
            symbols,
        )
    except SpecError as error:
        others = [name for name in given if name not in wanted]
        hint = f"; the model gave {', '.join(map(repr, others))} too" if others else ""
        raise SpecError(f"the answer does not fit the problem: {error}{hint}") from None
    return outputs
