"""What the providers that an onnxruntime session is asked for mean for a worker: the device, and the settings of CUDA's provider."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opexec import LoadError
from opexec.machine import devices

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

Provider = str | tuple[str, Mapping[str, Any]]

# Pointers into the memory of this process, which mean nothing in another one.
_POINTERS = frozenset(
    {"user_compute_stream", "has_user_compute_stream", "gpu_external_alloc", "gpu_external_free"}
    | {"gpu_external_empty_cache"}
)


@dataclass(frozen=True)
class Choice:
    """`device`: what `opexec.load` is to be told. `settings`: of CUDA's provider. `passed_over`: the other providers that were asked for.

    `or_cpu`: where the device cannot be had the CPU will do, for that was asked for too.
    """

    device: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    or_cpu: bool = False

    @property
    def providers(self) -> list[str]:
        """As `InferenceSession.get_providers` gives them. The CPU computes what CUDA's provider lacks, as in onnxruntime."""
        return [CPU] if self.device == "cpu" else [CUDA, CPU]


def choose(
    providers: Sequence[Provider] | None,
    provider_options: Sequence[Mapping[str, Any]] | None,
    device: str | None,
) -> Choice:
    """The first of `providers` that a worker can have, as onnxruntime takes the first that it has; `device` is what was said beside them.

    Raises ValueError for what contradicts itself, or cannot be had in another process at all.
    """
    number = None if device is None else devices.number_of(device)
    if not providers:
        if any(provider_options or ()):
            raise ValueError("provider_options is given without providers; name the provider that each is of")
        return Choice(device or "cpu")
    asked = _with_settings(providers, provider_options)
    names = list(asked)
    here = [name for name in names if name in (CPU, CUDA)]
    if not here:
        raise ValueError(
            f"providers is {names}; a session in another process runs on {CPU} or {CUDA}: name one of them, or leave providers out"
        )
    if asked.get(CPU):
        raise ValueError(
            f"settings of {CPU} are not passed on to a session in another process; leave them out"
        )
    first = here[0] if device is None else CPU if number is None else CUDA
    if first not in here:
        raise ValueError(
            f"providers is {names} and device is {device!r}; expected {first} among the providers"
        )
    passed_over = tuple(name for name in names if name != first and name != CPU)
    if first == CPU:
        return Choice("cpu", passed_over=passed_over)
    settings = dict(asked[CUDA])
    pointers = sorted(_POINTERS & settings.keys())
    if pointers:
        raise ValueError(f"{pointers[0]!r} of {CUDA} is about memory of this process; leave it out")
    given = settings.pop("device_id", None)
    if given is not None and number not in (None, int(given)):
        raise ValueError(
            f"device is {device!r}, and {CUDA} is given device_id={given!r}: leave one of them out"
        )
    return Choice(
        device or f"cuda:{int(given or 0)}", settings, passed_over, or_cpu=device is None and CPU in here
    )


def available() -> list[str]:
    """Those that a session may be given on this machine; whether a model's environment has them shows when it is loaded."""
    try:
        found = devices.seen(devices.listed(), os.environ)
    except LoadError:
        found = []
    return [CUDA, CPU] if found else [CPU]


def _with_settings(
    providers: Sequence[Provider], provider_options: Sequence[Mapping[str, Any]] | None
) -> dict[str, Mapping[str, Any]]:
    if provider_options and len(provider_options) != len(providers):
        raise ValueError(
            f"there are {len(providers)} providers and {len(provider_options)} provider_options; expected one for each"
        )
    found: dict[str, Mapping[str, Any]] = {}
    for place, provider in enumerate(providers):
        name, settings = (provider, {}) if isinstance(provider, str) else provider
        beside = provider_options[place] if provider_options else {}
        if settings and beside:
            raise ValueError(f"settings of {name} are given twice: beside its name, and in provider_options")
        found.setdefault(name, settings or beside)
    return found
