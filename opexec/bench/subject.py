"""A variant while it is measured, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..connection.timing import CallTimes
from ..errors import OpexecError
from ..model import Model
from . import costs, loops
from .report import Start
from .setups import Variant

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass
class Subject:
    """A variant, from before it is loaded until its `result` is told."""

    label: str
    variant: Variant
    model: Model | None = None
    inputs: Arrays = field(default_factory=dict)
    error: str | None = None
    runner: dict[str, str] | None = None
    start: Start | None = None
    grown: int | None = None
    """By how many bytes this process grew with a model in it."""
    pids: tuple[int, int] = (0, 0)
    """Of this process and of the first worker."""
    blocks: list[Block] = field(default_factory=list)
    timed: tuple[CallTimes, ...] = ()
    memory: int | None = None
    shared_memory: int = 0

    @property
    def running(self) -> bool:
        return self.error is None


@dataclass(frozen=True)
class Block:
    """Its calls of one round."""

    timed: loops.Timed
    spent: costs.Counters
    pace: float
    idle: np.ndarray[Any, Any]


def attempt(subject: Subject, step: Callable[[], object]) -> None:
    """Do `step`. One that fails is told as the subject's `error`, and nothing more is done with it."""
    try:
        step()
    except OpexecError as error:
        subject.error = str(error).partition("\n\n")[0]
