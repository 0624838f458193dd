"""Putting another model in the place of one that is being called: what may be said of it, and whether it implements the same problem."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import SpecError
from ..loading.launch import Launch
from ..loading.request import Request, Specs
from ..spec import InputSpecs, TensorSpec

#: Arguments of `load` that belong to the other model.
_ARGUMENTS = (
    "env",
    "platform",
    "options",
    "inputs",
    "outputs",
    "limits",
    "device",
    "threads",
    "cpus",
    "env_vars",
)
#: Those of the model that stays which its workers are started by: what holds and confines them must hold the next ones too.
_KEPT = ("name", "limits", "memory_limit", "nice", "open_files", "core_dumps", "cwd", "sandbox")


def launch(
    before: Launch, source: str | os.PathLike[str], arguments: Mapping[str, Any]
) -> tuple[Launch, str]:
    """How to start the other model's workers, where `before` started those there are; and its platform.

    Raises TypeError for arguments that belong to the model that stays.
    """
    wrong = [one for one in arguments if one not in _ARGUMENTS]
    if wrong:
        raise TypeError(
            f"swap has no argument {wrong[0]!r}; expected {', '.join(_ARGUMENTS)}. The rest stays as it was given to load"
        )
    kept = {name: getattr(before.request, name) for name in _KEPT}
    request = Request(source=source, **{**kept, **arguments})
    return Launch(request), request.parsed.platform


def check(old: Specs, new: Specs) -> None:
    """Raise SpecError unless a model of specs `new` implements the problem that the specs `old` are (`Problem.check`).

    Where `old` tells nothing there is nothing to compare. What `new` leaves open passes, as the answers of the new model are still held
    against `old`, one by one; for the same reason it must give no output that `old` does not have.
    """
    from ..problem import Problem  # only here: most models are never swapped

    for kind, before, after in zip(("inputs", "outputs"), old, new):
        if before is not None and after is None:
            raise SpecError(
                f"the other model does not tell its {kind}, so that nobody knows whether it implements the problem of this one, which "
                f"goes on. Tell them: {kind}=[...], or {kind}=model.{kind} if they are those of this one"
            )
    inputs, outputs = old
    takes = () if inputs is None else new[0]
    gives = () if outputs is None else new[1]
    fit = Problem("that of the old model", inputs or (), outputs or ()).check(takes, gives)
    differences = [str(one) for one in fit.differences]
    differences += [
        f"input {name!r}: calls may leave it out, and the model needs it"
        for name in _names(takes)
        if name in _optional(inputs) and name not in _optional(takes)
    ]
    differences += [
        f"output {name!r}: the model gives it, and the specs that its answers are held against do not have it"
        for name in _names(gives)
        if name not in _names(outputs)
    ]
    if differences:
        raise SpecError(
            "the other model does not implement the problem that the specs of this one are; this one goes on:\n  "
            + "\n  ".join(differences)
        )


def _optional(inputs: Iterable[TensorSpec] | None) -> frozenset[str]:
    return inputs.optional if isinstance(inputs, InputSpecs) else frozenset()


def _names(specs: Iterable[TensorSpec] | None) -> list[str]:
    return [spec.name for spec in specs or ()]
