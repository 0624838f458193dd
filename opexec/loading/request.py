"""What `load` was asked for, checked and with its defaults: everything about a model that is known before anything is started."""

from __future__ import annotations

import os
import platform as machine
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..batching.policy import BatchPolicy
from ..environment import Environment
from ..environments import interpreters
from ..errors import OpexecError
from ..ipc import packing
from ..ipc.strategies import STRATEGIES
from ..machine import cores, devices
from ..memory import parse_size
from ..processes.limits import Limits
from ..processes.sandbox import Sandbox
from ..processes.sandbox import checked as checked_sandbox
from ..spec import TensorSpec, parse_specs
from ..supervision.policies import RestartPolicy, Supervision
from ..workers.platforms import PLATFORMS, WITHOUT_THREADS
from .source import Source, parse

if TYPE_CHECKING:
    from ..package import Limits as PackageLimits

SpecsGiven = Iterable[TensorSpec | Mapping[str, Any]] | None
Specs = tuple[tuple[TensorSpec, ...] | None, tuple[TensorSpec, ...] | None]
EnvironmentGiven = Environment | str | os.PathLike[str] | None


class Place(NamedTuple):
    """Where a model runs."""

    interpreter: Path
    env_vars: Mapping[str, str]
    """Environment variables that belong to it."""


#: Builds an environment if need be, telling `progress` its steps, and gives the place where the model runs.
Finder = Callable[[Callable[[str], None] | None], Place]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `load`, which says what each means, and what follows from them."""

    source: str | os.PathLike[str]
    env: EnvironmentGiven = None
    platform: str | None = None
    options: Mapping[str, Any] | None = None
    limits: PackageLimits | None = None
    isolation: str = "process"
    inputs: SpecsGiven = None
    outputs: SpecsGiven = None
    device: str = "cpu"
    timeout: float | None = None
    wait: str = "adaptive"
    threads: int | None = None
    cpus: Iterable[int] | None = None
    env_vars: Mapping[str, str | None] | None = None
    shm_limit: int | str | None = None
    memory_limit: int | str | None = None
    nice: int = 0
    open_files: int | None = None
    core_dumps: bool = False
    cwd: str | os.PathLike[str] | None = None
    sandbox: Sandbox | bool = False
    restart: bool | RestartPolicy = True
    retries: int = 0
    grace: float | None = 5.0
    load_timeout: float | None = 600.0
    while_restarting: str = "wait"
    replicas: int = 1
    max_pending: int | None = None
    when_full: str = "error"
    max_calls: int | None = None
    max_memory: int | str | None = None
    batch: BatchPolicy | None = None
    name: str = ""
    check: bool = True

    parsed: Source = field(init=False)
    specs: Specs = field(init=False)
    most_memory: int | None = field(init=False)
    worker_limits: Limits = field(init=False)
    supervision: Supervision = field(init=False)
    find_place: Finder = field(init=False)
    #: What the platform is told.
    settings: dict[str, Any] = field(init=False)
    #: The GPU that it computes on; None for the CPU.
    gpu: devices.Gpu | None = field(init=False)
    _threads: int | None = field(init=False)
    _given_variables: dict[str, str | None] = field(init=False)

    def __post_init__(self) -> None:
        _check_machine()
        _check_choices(self)
        set = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  (the class is frozen)
        set("most_memory", None if self.shm_limit is None else parse_size(self.shm_limit))
        set("specs", (parse_specs(self.inputs, "input"), parse_specs(self.outputs, "output")))
        set("cpus", cores.checked_cpus(self.cpus))
        worker_limits = Limits(
            memory_limit=self.memory_limit,
            nice=self.nice,
            open_files=self.open_files,
            core_dumps=self.core_dumps,
        )
        set("worker_limits", worker_limits)
        set("supervision", Supervision(**{one.name: getattr(self, one.name) for one in fields(Supervision)}))
        set("cwd", _checked_folder(self.cwd))
        _check_batch(self)
        if self.isolation == "none":
            _check_needs_no_worker(self)
        set("sandbox", checked_sandbox(self.sandbox))
        devices.number_of(self.device)  # a wrong one is told before a wrong source
        find = _finder(self.env)
        set("parsed", parse(self.source, self.platform, _checked_limits(self.limits)))
        package = self.parsed.package
        if package is not None:
            from ..packages import loading as package_loading  # only here: most programs load no package

            find = package_loading.finder(package, None if self.env is None else find)
        set("find_place", find)
        set("name", self.name or _name_of(self.parsed))
        options = {} if self.options is None else _plain_options(self.options)
        threads = _threads(self, options)
        if threads is None and self.cpus is not None:
            threads = len(self.cpus)  # type: ignore[arg-type]
        number = _gpu_number(self, options)
        set("gpu", None if number is None else devices.choose(number))
        set("settings", _settings(self, options, threads, number))
        set("_threads", threads)
        set("_given_variables", _checked_variables(self.env_vars))

    def variables(self, environment: Mapping[str, str]) -> dict[str, str | None]:
        """Environment variables of a worker, over the caller's; None unsets one. `environment`: those of the place where it runs.

        Later ones win: the environment's, those of threads and device, those given to `load`. What `devices.SHARING` says is no more than a
        default, which the caller's own variables and the environment's come before.
        """
        variables: dict[str, str | None] = dict(environment)
        before = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
        variables.update(cores.thread_variables(self._threads, before))
        if self.gpu is not None:
            variables[devices.VISIBLE] = self.gpu.uuid
            variables.update({name: value for name, value in devices.SHARING.items() if name not in before})
        elif self.parsed.platform != "python":
            # TensorFlow and jax would take hold of every GPU's memory, though nothing is to run there. A Python model may choose by itself.
            variables[devices.VISIBLE] = ""
        return {**variables, **self._given_variables}


def _check_machine() -> None:
    if sys.platform != "linux" or machine.machine() not in ("x86_64", "aarch64"):
        raise OpexecError(
            f"opexec runs on Linux on x86-64 and aarch64; this is {sys.platform} on {machine.machine()}"
        )


def _check_choices(request: Request) -> None:
    if request.isolation not in ("process", "none"):
        raise ValueError(f"isolation is {request.isolation!r}; expected 'process' or 'none'")
    check_wait(request.wait)
    check_timeout(request.timeout)
    _check_threads(request.threads)


def _check_threads(threads: object) -> None:
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(
            f"threads is {threads!r}; expected a positive number of threads, or None for the framework's own choice"
        )


def check_wait(wait: object) -> None:
    """Raise ValueError unless it names a wait strategy."""
    if wait not in STRATEGIES:
        raise ValueError(f"wait is {wait!r}; expected one of {', '.join(map(repr, STRATEGIES))}")


def check_timeout(timeout: object, argument: str = "timeout") -> None:
    """Raise ValueError unless it is a number of seconds or None."""
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise ValueError(f"{argument} is {timeout!r}; expected a positive number of seconds, or None")


def _check_batch(request: Request) -> None:
    if request.batch is None:
        return
    if not isinstance(request.batch, BatchPolicy):
        raise TypeError(
            f"batch is {request.batch!r}; expected a BatchPolicy, as in BatchPolicy(max_size=32), or None"
        )
    if request.isolation == "none":
        raise ValueError(
            "batch is given with isolation='none'; calls are joined on their way to a worker: expected isolation='process'"
        )
    if not request.check:
        raise ValueError(
            "batch is given with check=False; calls are joined by the specs that they are checked against: expected check=True"
        )


def _check_needs_no_worker(request: Request) -> None:
    """What was asked for in order to be safe must not be left out in silence."""
    nothing = {"memory_limit": None, "nice": 0, "open_files": None, "cwd": None, "sandbox": False}
    for name, value in nothing.items():
        given = getattr(request, name)
        if given not in (value, None):
            raise ValueError(
                f"{name} is {given!r} with isolation='none'; it is a worker's that can be limited: expected isolation='process'"
            )


def _checked_limits(given: PackageLimits | None) -> PackageLimits | None:
    if given is None:
        return None
    from ..package import Limits  # only here: most programs load no package

    if not isinstance(given, Limits):
        raise TypeError(
            f"limits is {given!r}; expected an opexec.package.Limits, as in Limits(size=100 << 30), or None"
        )
    return given


def _checked_folder(given: str | os.PathLike[str] | None) -> str | None:
    if given is None:
        return None
    try:
        folder = os.path.abspath(os.path.expanduser(os.fsdecode(os.fspath(given))))
    except TypeError:
        raise ValueError(f"cwd is {given!r}; expected the path of a folder, or None") from None
    if not os.path.isdir(folder):
        raise ValueError(f"cwd is {folder}, which is no folder; check the path")
    return folder


def _name_of(source: Source) -> str:
    if source.package is not None:
        return source.package.name
    place, colon, factory = source.target.rpartition(":")
    return f"{Path(place).stem}:{factory}" if colon else Path(source.target).stem


def _finder(env: EnvironmentGiven) -> Finder:
    if env is None:
        return lambda progress: Place(Path(sys.executable), {})
    if isinstance(env, str) and os.sep not in env and not os.path.exists(os.path.expanduser(env)):
        from ..environments.store import named  # only here: most programs have no use for it

        env = named(env)
    if isinstance(env, Environment):
        environment = env
        return lambda progress: Place(environment.resolve(progress), environment.env_vars)
    if isinstance(env, str | os.PathLike):
        path = env
        return lambda progress: Place(interpreters.interpreter_of(path), {})
    raise TypeError(
        f"env is of type {type(env).__name__}; expected an Environment, the name of a saved one, the path of an interpreter or of a "
        "venv or conda folder, or None"
    )


def _threads(request: Request, options: dict[str, Any]) -> int | None:
    """How many threads were asked for, as an argument or as an option, which is taken out of `options`."""
    asked = options.get("threads")
    if asked is None or request.parsed.platform in WITHOUT_THREADS:
        return request.threads
    if request.parsed.platform in PLATFORMS:
        _check_threads(asked)
    elif type(asked) is not int:  # what a platform of the user's own makes of it is up to that
        return request.threads
    if request.threads not in (None, asked):
        raise _given_twice("threads", request.threads, asked)
    del options["threads"]
    return int(asked)


def _gpu_number(request: Request, options: dict[str, Any]) -> int | None:
    """The number of the GPU that was asked for, as an argument or as an option, which is taken out of `options`; None for the CPU.

    The argument's default says nothing: the option may name a GPU all the same.
    """
    number = devices.number_of(request.device)
    asked = options.get("device")
    if asked is None or request.parsed.platform == "python":
        return number
    try:
        wanted = devices.number_of(asked)
    except ValueError:
        if request.parsed.platform in PLATFORMS:
            raise
        return number
    if number not in (None, wanted):
        raise _given_twice("device", request.device, asked)
    del options["device"]
    return wanted


def _given_twice(name: str, argument: object, option: object) -> ValueError:
    return ValueError(
        f"{name!r} is given twice: {argument!r} as an argument of load, and {option!r} in options; expected one of them"
    )


def _settings(
    request: Request, options: dict[str, Any], threads: int | None, number: int | None
) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if threads is not None and request.parsed.platform not in WITHOUT_THREADS:
        given["threads"] = threads
    # On which device a Python model computes is its own affair, beyond its environment variables.
    if number is not None and request.parsed.platform != "python":
        given["device"] = (
            "cuda:0" if request.isolation == "process" else f"cuda:{number}"
        )  # of its own, it has one
    for name in given:
        if options.get(name) is not None:  # of a form that only a platform of the user's own knows
            raise _given_twice(name, given[name], options[name])
    return {**options, **given}


def _plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as they can be sent to another interpreter."""
    try:
        plain = {
            name: os.fspath(value) if isinstance(value, os.PathLike) else value
            for name, value in options.items()
        }
        packing.pack(plain)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"options is {options!r}; expected a dict of texts, numbers, paths, lists and dicts, which another interpreter understands "
            f"({error})"
        ) from None
    wrong = [name for name in plain if not isinstance(name, str)]
    if wrong:
        raise TypeError(f"options has the key {wrong[0]!r}; expected the name of an option, a text")
    return plain


def _checked_variables(given: Mapping[str, str | None] | None) -> dict[str, str | None]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            f"env_vars is of type {type(given).__name__}; expected a dict of texts, as in {{'NAME': 'value'}}"
        )
    for name, value in given.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"env_vars has the key {name!r}; expected the name of an environment variable")
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise ValueError(f"env_vars has {name}={value!r}; expected a text, or None to unset it")
    return dict(given)
