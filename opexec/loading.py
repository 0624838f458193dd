"""`load`: from what the user names to a running model."""

from __future__ import annotations

import os
import platform as machine
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import interpreters, overlay
from .environment import Environment
from .errors import LoadError, OpexecError
from .inprocess import InProcessModel
from .ipc.doorbell import STRATEGIES
from .isolated import IsolatedModel, Launch, Specs
from .memory import parse_size
from .model import Model
from .source import Source, parse
from .spec import TensorSpec, parse_specs
from .worker import WorkerProcess
from .workers import platforms
from .workers.failure import describe

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

SpecsGiven = Iterable[TensorSpec | Mapping[str, Any]] | None


def load(
    source: str | os.PathLike[str],
    *,
    env: Environment | str | os.PathLike[str] | None = None,
    isolation: str = "process",
    inputs: SpecsGiven = None,
    outputs: SpecsGiven = None,
    timeout: float | None = None,
    wait: str = "adaptive",
    threads: int | None = None,
    shm_limit: int | str | None = None,
    name: str | None = None,
    check: bool = True,
) -> Model:
    """Load a model into a worker process of its own, and return what calls it.

    `source`: an ONNX file (``.onnx``), a TorchScript file (``.pt``), or ``"path/to/file.py:factory"`` or ``"package.module:factory"``, where the
    factory returns a callable that takes the inputs as keywords.
    `env`: an `Environment`, which is built if need be; the path of an interpreter or of a venv or conda folder; None for the caller's own interpreter.
    `isolation`: ``"process"``, or ``"none"`` to run the same platform code in this process, in this interpreter; `env` has no effect then.
    `inputs`, `outputs`: the specs, where the model does not carry them or others are wanted. Without any, nothing is checked.
    `timeout`: seconds that a call may take unless it says otherwise.
    `wait`: how a caller waits for an answer: ``"adaptive"``, ``"block"`` (least CPU) or ``"spin"`` (least latency: it looks for a millisecond before it sleeps).
    `threads`: how many threads the model's framework may compute with; in a worker it takes effect before the framework is imported.
    `shm_limit`: most shared memory of this model, in bytes or as text (``"512MiB"``).
    `name`: what it is called in messages and logs; by default, after its source.
    `check`: False to check no call against the specs.

    Raises LoadError (its `stage` says how far it came), BuildError, WorkerDied, OutOfSharedMemory, SpecError.
    """
    _check_platform()
    if isolation not in ("process", "none"):
        raise ValueError(f"isolation is {isolation!r}; expected 'process' or 'none'")
    if wait not in STRATEGIES:
        raise ValueError(f"wait is {wait!r}; expected one of {', '.join(map(repr, STRATEGIES))}")
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise ValueError(f"timeout is {timeout!r}; expected a positive number of seconds, or None")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(
            f"threads is {threads!r}; expected a positive number of threads, or None for the framework's own choice"
        )
    limit = None if shm_limit is None else parse_size(shm_limit)
    given = parse_specs(inputs, "input"), parse_specs(outputs, "output")
    parsed = parse(source)
    name = name or _name_of(parsed)
    # What computes with threads in a Python model is the model's own affair, beyond the variables below.
    options: dict[str, Any] = {} if threads is None or parsed.platform == "python" else {"threads": threads}
    if isolation == "none":
        return _in_process(parsed, name, given, check, options)
    interpreter = interpreters.probe(_interpreter_of(env))

    def start() -> WorkerProcess:
        return WorkerProcess.start(
            interpreter.path, name, overlay=overlay.ensure(interpreter), env_vars=_thread_variables(threads)
        )

    def read(loaded: dict[str, Any]) -> Specs:
        if loaded["type"] == "failed":
            raise _load_error(parsed, str(interpreter), loaded["error"])
        return _specs(given, loaded["inputs"], loaded["outputs"])

    message = {"platform": parsed.platform, "source": parsed.target, "options": options}
    return IsolatedModel(
        name=name,
        platform=parsed.platform,
        launch=Launch(start, message, read),
        check=check,
        timeout=timeout,
        wait=wait,
        shm_limit=limit,
    )


def _check_platform() -> None:
    if sys.platform != "linux" or machine.machine() not in ("x86_64", "aarch64"):
        raise OpexecError(
            f"opexec runs on Linux on x86-64 and aarch64; this is {sys.platform} on {machine.machine()}"
        )


def _name_of(source: Source) -> str:
    place, colon, factory = source.target.rpartition(":")
    return f"{Path(place).stem}:{factory}" if colon else Path(source.target).stem


def _interpreter_of(env: Environment | str | os.PathLike[str] | None) -> Path:
    if env is None:
        return Path(sys.executable)
    if isinstance(env, Environment):
        return env.resolve()
    if isinstance(env, str | os.PathLike):
        return interpreters.interpreter_of(env)
    raise TypeError(
        f"env is of type {type(env).__name__}; expected an Environment, the path of an interpreter or of a venv or conda folder, or None"
    )


def _thread_variables(threads: int | None) -> dict[str, str]:
    """What numerical libraries read when they are imported."""
    return {} if threads is None else dict.fromkeys(_THREAD_VARIABLES, str(threads))


def _in_process(source: Source, name: str, given: Specs, check: bool, options: dict[str, Any]) -> Model:
    try:
        if source.platform == "python":
            options = {"in_process": True}
        loaded = platforms.load(source.platform, source.target, options)
    except (Exception, SystemExit) as error:  # a factory's sys.exit() must not end the caller
        raise _load_error(source, sys.executable, describe(error)) from error
    inputs, outputs = _specs(given, loaded.inputs, loaded.outputs)
    return InProcessModel(
        name=name, platform=source.platform, loaded=loaded, inputs=inputs, outputs=outputs, check=check
    )


def _specs(given: Specs, inputs: SpecsGiven, outputs: SpecsGiven) -> Specs:
    return (
        parse_specs(inputs, "input") if given[0] is None else given[0],
        parse_specs(outputs, "output") if given[1] is None else given[1],
    )


def _load_error(source: Source, interpreter: str, error: dict[str, str]) -> LoadError:
    return LoadError(
        f"{source.target} could not be loaded by the {source.platform} platform in {interpreter}: "
        f"{error['type']}: {error['message']}\n\n{error['traceback']}",
        stage="load",
    )
