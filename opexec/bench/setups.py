"""What is put side by side: every combination of what was asked for.

A *setup* is a model as it is loaded: source, environment, in a worker or in process, replicas. A *variant* is a setup and how it is
called: callers, sizes, batch. The variants of one setup share its loaded model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..environment import Environment
from ..model import Model


@dataclass(frozen=True)
class Setup:
    """`arguments` are those of `opexec.load`, the source among them."""

    model: str
    """A name that tells it from the others."""
    arguments: Mapping[str, Any]
    opener: Callable[[Mapping[str, Any]], Model] | None = None
    """What opens it with these arguments; None for `opexec.load`."""

    @property
    def isolated(self) -> bool:
        return self.arguments.get("isolation", "process") == "process"

    @property
    def replicas(self) -> int:
        return int(self.arguments.get("replicas", 1))

    @property
    def env(self) -> str | None:
        env = self.arguments.get("env")
        if isinstance(env, Environment):
            return (
                " ".join(filter(None, [f"Python {env.python}" if env.python else "", *env.requirements]))
                or None
            )
        return None if env is None else str(env)

    def open(self) -> Model:
        from ..loading.load import load  # only here: reports are read and compared without it

        return load(**self.arguments) if self.opener is None else self.opener(self.arguments)


@dataclass(frozen=True)
class Variant:
    setup: Setup
    callers: int = 1
    batch: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def axes(self) -> dict[str, Any]:
        """All that can tell it from another variant."""
        return {
            "model": self.setup.model,
            "env": self.setup.env,
            "isolation": "process" if self.setup.isolated else "none",
            "replicas": self.setup.replicas,
            "callers": self.callers,
            "batch": self.batch,
            "sizes": dict(self.sizes),
        }


def setups(
    models: Sequence[tuple[str, Mapping[str, Any]]],
    envs: Sequence[Sequence[Any]],
    in_process: bool,
    replicas: Sequence[int],
    opener: Callable[[Mapping[str, Any]], Model] | None = None,
) -> list[Setup]:
    """Of models by name; `envs` has for each those it runs in, none for the default. `in_process`: in this process first, too."""
    found = []
    for (name, arguments), own in zip(models, envs):
        if in_process:
            here = {key: value for key, value in arguments.items() if key != "env"}
            found.append(Setup(name, {**here, "isolation": "none"}, opener))
        for env, count in itertools.product(own or [arguments.get("env")], replicas):
            asked = dict(arguments)
            if env is not None:
                asked["env"] = env
            if count != 1:
                asked["replicas"] = count
            found.append(Setup(name, asked, opener))
    return found


def variants(
    setups: Sequence[Setup],
    callers: Sequence[int],
    batches: Sequence[int | None],
    sizes: Mapping[str, Sequence[int]],
) -> list[Variant]:
    grids = [dict(zip(sizes, chosen)) for chosen in itertools.product(*sizes.values())]
    return [
        Variant(setup, count, batch, grid)
        for batch, grid, count, setup in itertools.product(batches, grids, callers, setups)
    ]


_WORDS: dict[str, Callable[[Any], str]] = {
    "model": str,
    "env": lambda env: "its own environment" if env is None else str(env),
    "isolation": lambda how: "in process" if how == "none" else "isolated",
    "replicas": lambda count: f"{count} replica{'s' * (count != 1)}",
    "callers": lambda count: f"{count} caller{'s' * (count != 1)}",
    "batch": lambda size: "default batch" if size is None else f"batch {size}",
    "sizes": lambda sizes: " ".join(f"{name}={size}" for name, size in sizes.items()),
}


def labels(variants: Sequence[Variant]) -> list[str]:
    """For each a short text of what differs among them; the model's name where nothing does."""
    axes = [variant.axes for variant in variants]
    differing = [key for key in _WORDS if any(each[key] != axes[0][key] for each in axes)]
    texts = []
    for each in axes:
        parts = [
            _WORDS[key](each[key])
            for key in differing
            # What runs in process has this interpreter and no replicas, whatever the others have.
            if each["isolation"] == "process" or key not in ("env", "replicas")
        ]
        texts.append(", ".join(filter(None, parts)) or each["model"])
    return texts
