"""What a run found, as data: frozen, and written to JSON and read back without loss. Times are in seconds, sizes in bytes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..connection.timing import CallTimes
from ..errors import OpexecError
from ..files import whole_files
from .breakdown import Breakdown
from .statistics import Latency, Ratio, paired

#: Of the file that `Report.write` makes; raised when what it holds changes its meaning.
FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """How a run measures; `opexec.bench.run` says what each means."""

    rounds: int = 10
    seconds: float = 0.5
    rate: float | None = None
    idle: float = 0.05
    idle_calls: int = 3
    starts: int = 1
    warm_up: float = 10.0
    timed_calls: int = 100
    shared: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("starts", 1), ("idle_calls", 0), ("timed_calls", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}; expected a whole number, {least} or more")
        for name in ("seconds", "idle", "warm_up"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value!r}; expected a positive number of seconds")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ValueError(f"rate is {self.rate!r}; expected a positive number of calls a second, or None")


@dataclass(frozen=True)
class Round:
    """One block of calls."""

    p50: float
    p90: float
    p99: float
    mean: float
    throughput: float
    """Calls a second."""
    pace: float
    """Seconds that a fixed piece of Python took just before: how quick the machine was."""


@dataclass(frozen=True)
class Start:
    """Beginning from nothing. An entry for each start."""

    loads: tuple[float, ...]
    """From the call of `load` to its return."""
    first_calls: tuple[float, ...]
    warm_up_calls: int
    warm_up_seconds: float
    steady: bool
    """Whether calls had stopped getting faster when warming up ended (`warming` has the rule)."""


@dataclass(frozen=True)
class Costs:
    caller_cpu: float
    """CPU seconds a call in the caller's process. Of an open loop without what it spends on waiting for calls to be due."""
    worker_cpu: float | None
    """CPU seconds a call in the workers; None for a model in process, whose CPU time is the caller's."""
    copied_in: float
    """Bytes a call copied into shared memory, and by the worker."""
    copied_out: float
    memory: int | None
    """The most that the workers had resident; in process, by how much loading made this process grow."""
    shared_memory: int
    """Held at the end."""


@dataclass(frozen=True)
class Result:
    """One variant. What was not measured because it failed is None."""

    label: str
    axes: Mapping[str, Any]
    """model, env, isolation (``"process"`` or ``"none"``), replicas, callers, batch, sizes."""
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """``float32[1, 3]`` of each."""
    runner: Mapping[str, str] | None = None
    """What runs it: framework, framework_version, python, numpy, interpreter."""
    error: str | None = None
    start: Start | None = None
    latency: Latency | None = None
    after_idle: Latency | None = None
    rounds: tuple[Round, ...] = ()
    throughput: float | None = None
    """Calls a second: the median of the rounds."""
    never_made: int = 0
    """Calls of an open loop that were still to be made when it was given up; their waiting is in `latency`."""
    costs: Costs | None = None
    timed: tuple[CallTimes, ...] = ()
    """Of the calls that were timed in every step, after the rounds, by one caller; none in process, nor for further numbers of callers."""
    pids: tuple[int, int] = (0, 0)
    """Of the caller's process, and of the first worker's."""

    @property
    def breakdown(self) -> Breakdown | None:
        return Breakdown.of(self.timed) if self.timed else None


@dataclass(frozen=True)
class Difference:
    """How a variant stands to its base (`Report.base`), round by round: each figure as a multiple of the base's."""

    p50: Ratio
    p90: Ratio
    p99: Ratio
    mean: Ratio
    throughput: Ratio


@dataclass(frozen=True)
class Report:
    opexec: str
    """The version that measured."""
    date: str
    """When it began: ISO 8601, UTC."""
    machine: Mapping[str, Any]
    settings: Settings
    results: tuple[Result, ...]

    @property
    def complete(self) -> bool:
        return all(result.error is None for result in self.results)

    def base(self, result: Result) -> Result | None:
        """What a variant is held against: the first setup, called in the same way; where all have one setup, the first variant.

        None for that itself, for what failed, and where it failed.
        """
        several = any(_setup(each) != _setup(self.results[0]) for each in self.results)
        alike = [each for each in self.results if not several or _calling(each) == _calling(result)]
        base = alike[0]
        if base is result or base.error is not None or result.error is not None:
            return None
        return base

    def difference(self, result: Result) -> Difference | None:
        """To its `base`, where it has one."""
        base = self.base(result)
        if base is None:
            return None
        return Difference(
            *(
                paired(
                    [getattr(each, field.name) for each in result.rounds],
                    [getattr(each, field.name) for each in base.rounds],
                    self.settings.seed,
                )
                for field in dataclasses.fields(Difference)
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON. With what follows from the rest: for each result its `difference` and its `breakdown`."""
        told = dataclasses.asdict(self)
        for result, each in zip(self.results, told["results"]):
            found = self.difference(result)
            each["difference"] = None if found is None else dataclasses.asdict(found)
            each["breakdown"] = None if result.breakdown is None else dataclasses.asdict(result.breakdown)
            each["timed"] = [list(call) for call in result.timed]
        return {"format": FORMAT, "kind": "opexec bench", **finite(told)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Report:
        """Raises ValueError, KeyError or TypeError for what `to_dict` has not made."""
        if told.get("kind") != "opexec bench" or told.get("format") != FORMAT:
            raise ValueError(f"expected a report of format {FORMAT}")
        return cls(
            opexec=told["opexec"],
            date=told["date"],
            machine=told["machine"],
            settings=Settings(**told["settings"]),
            results=tuple(map(_result, told["results"])),
        )

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all. Raises OpexecError."""
        whole_files.write_text(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> Report:
    """A report that `Report.write` wrote. Raises OpexecError."""
    try:
        return Report.from_dict(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise OpexecError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OpexecError(
            f"{path} is no report of `opexec bench --json` of this version: {type(error).__name__}: {error}"
        ) from error


def _result(told: Mapping[str, Any]) -> Result:
    def made(kind: Any, key: str) -> Any:
        return None if told[key] is None else kind(**told[key])

    start = told["start"]
    return Result(
        label=told["label"],
        axes=told["axes"],
        inputs=told["inputs"],
        runner=told["runner"],
        error=told["error"],
        start=None
        if start is None
        else Start(**{**start, "loads": tuple(start["loads"]), "first_calls": tuple(start["first_calls"])}),
        latency=made(Latency, "latency"),
        after_idle=made(Latency, "after_idle"),
        rounds=tuple(Round(**each) for each in told["rounds"]),
        throughput=told["throughput"],
        never_made=told["never_made"],
        costs=made(Costs, "costs"),
        timed=tuple(CallTimes(*call) for call in told["timed"]),
        pids=(told["pids"][0], told["pids"][1]),
    )


def _setup(result: Result) -> tuple[Any, ...]:
    return tuple(result.axes[name] for name in ("model", "env", "isolation", "replicas"))


def _calling(result: Result) -> tuple[Any, ...]:
    return tuple(result.axes[name] for name in ("callers", "batch", "sizes"))


def finite(value: Any) -> Any:
    """JSON has no infinity: a bound of an interval that is open is null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if value == float("inf") else value
