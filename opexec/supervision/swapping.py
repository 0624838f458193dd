"""Putting another model in the place of one that is being called: what may be said of it, and whether it takes and gives the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import SpecError
from ..launch import Launch
from ..request import Request, Specs
from ..spec import TensorSpec

_ARGUMENTS = ("env", "platform", "options", "inputs", "outputs", "device", "threads", "cpus", "env_vars")


def launch(name: str, source: str | os.PathLike[str], arguments: Mapping[str, Any]) -> tuple[Launch, str]:
    """How to start the other model's workers, and its platform. Raises TypeError for arguments that belong to the model that stays."""
    wrong = [one for one in arguments if one not in _ARGUMENTS]
    if wrong:
        raise TypeError(
            f"swap has no argument {wrong[0]!r}; expected {', '.join(_ARGUMENTS)}. The rest stays as it was given to load"
        )
    request = Request(source=source, name=name, **arguments)
    return Launch(request), request.parsed.platform


def check(old: Specs, new: Specs) -> None:
    """Raise SpecError unless a model of specs `new` takes whatever one of specs `old` takes, and gives nothing else.

    Where either has no specs there is nothing to compare: the calls will tell.
    """
    for what, olds, news in (("input", old[0], new[0]), ("output", old[1], new[1])):
        if olds is None or news is None:
            continue
        before, after = ({spec.name: spec for spec in specs} for specs in (olds, news))
        missing = [name for name in before if name not in after]
        added = [name for name in after if name not in before]
        if missing or (added and what == "input"):
            raise SpecError(
                f"the other model does not fit: expected the {what}s {', '.join(map(repr, before))}; it has "
                f"{', '.join(map(repr, after)) or 'none'}. The old one goes on"
            )
        for name, spec in before.items():
            _check_one(what, spec, after[name])


def _check_one(what: str, old: TensorSpec, new: TensorSpec) -> None:
    wide, narrow = (new, old) if what == "input" else (old, new)
    fits = old.dtype == new.dtype
    if fits and wide.shape is not None:
        fits = (
            narrow.shape is not None
            and len(narrow.shape) == len(wide.shape)
            and all(not isinstance(most, int) or most == one for most, one in zip(wide.shape, narrow.shape))
        )
    if not fits:
        raise SpecError(
            f"the other model does not fit: {what} {old.name!r} is expected to be {_text(old)}; there it is {_text(new)}. "
            "The old one goes on"
        )


def _text(spec: TensorSpec) -> str:
    return f"{spec.dtype}{'' if spec.shape is None else list(spec.shape)}"
