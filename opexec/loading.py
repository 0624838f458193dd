"""`load`: from what the user names to a running model."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from .inprocess import InProcessModel
from .isolated import IsolatedModel
from .launch import Launch, Report, Turn, check_version, load_error, merged, message
from .model import Model
from .request import EnvironmentGiven, Request, SpecsGiven
from .workers import platforms
from .workers.failure import describe


def load(
    source: str | os.PathLike[str],
    *,
    env: EnvironmentGiven = None,
    platform: str | None = None,
    options: Mapping[str, Any] | None = None,
    isolation: str = "process",
    inputs: SpecsGiven = None,
    outputs: SpecsGiven = None,
    device: str = "cpu",
    timeout: float | None = None,
    wait: str = "adaptive",
    threads: int | None = None,
    cpus: Iterable[int] | None = None,
    env_vars: Mapping[str, str | None] | None = None,
    shm_limit: int | str | None = None,
    wait_ready: bool = True,
    name: str | None = None,
    check: bool = True,
) -> Model:
    """Load a model into a worker process of its own, and return what calls it.

    `source`: a model's file or folder, whose format is told from its content; a package (docs/packages.md), as a folder or a zip; or
    ``"path/to/file.py:factory"`` or ``"package.module:factory"``, where the factory returns a callable that takes the inputs as keywords.
    `env`: an `Environment`, which is built if need be; the name of a saved one; the path of an interpreter or of a venv or conda folder; None
    for the caller's own interpreter. A package runs in the first that has a version it allows: its own environment, `env`, the saved ones,
    the caller's interpreter.
    `platform`: what runs the model, where the source does not tell: ``"torch"`` for a factory of a torch module, or one of your own.
    `options`: settings of that platform, as a dict of plain values.
    `isolation`: ``"process"``, or ``"none"`` to run the same platform code in this process, in this interpreter; `env`, `cpus`, `env_vars` and
    `wait_ready` have no effect then.
    `inputs`, `outputs`: the specs, where the model does not carry them or others are wanted. Without any, nothing is checked.
    `device`: ``"cpu"``, or ``"cuda:N"``, the Nth GPU of those that this process may use: the worker sees that one alone.
    `timeout`: seconds that a call may take unless it says otherwise.
    `wait`: how a caller waits for an answer: ``"adaptive"``, ``"block"`` (least CPU) or ``"spin"`` (least latency: it looks for a millisecond before it sleeps).
    `threads`: how many threads the model's framework may compute with; in a worker it takes effect before the framework is imported. By
    default as many as there are `cpus`, if these are given, else what the framework chooses.
    `cpus`: numbers of the cores that the worker may run on.
    `env_vars`: environment variables of the worker, over the caller's and those of `env`; None unsets one.
    `shm_limit`: most shared memory of this model, in bytes or as text (``"512MiB"``).
    `wait_ready`: False to return at once, while the environment is built and the model loaded in the background; the first call waits.
    `name`: what it is called in messages and logs; by default, after its source.
    `check`: False to check no call against the specs.

    Raises LoadError (its `stage` says how far it came), BuildError, WorkerDied, OutOfSharedMemory, SpecError, and PackageError for a broken package; with ``wait_ready=False`` what
    happens in the background is raised by the calls.
    """
    request = Request(
        source=source,
        env=env,
        platform=platform,
        options=options,
        isolation=isolation,
        inputs=inputs,
        outputs=outputs,
        device=device,
        timeout=timeout,
        wait=wait,
        threads=threads,
        cpus=cpus,
        env_vars=env_vars,
        shm_limit=shm_limit,
        name=name or "",
        check=check,
    )
    return open_model(request, wait_ready)


def open_model(
    request: Request, wait_ready: bool, report: Report | None = None, turn: Turn = contextlib.nullcontext
) -> Model:
    """The model of a request. `report` is told the steps of its loading; `turn` surrounds the part that keeps a core busy."""
    if request.isolation == "none":
        return _in_process(request)
    return IsolatedModel(
        name=request.name,
        platform=request.parsed.platform,
        launch=Launch(request, report, turn),
        check=request.check,
        timeout=request.timeout,
        wait=request.wait,
        shm_limit=request.most_memory,
        background=not wait_ready,
    )


def _in_process(request: Request) -> Model:
    source = request.parsed
    told = message(request)
    options = dict(told["options"])
    if source.package is not None:
        options["options"] = {**options["options"], "in_process": True}
    elif source.platform in platforms.WITH_FACTORIES:
        options["in_process"] = True
    try:
        loaded = platforms.load(told["platform"], told["source"], options)
    except (Exception, SystemExit) as error:  # a factory's sys.exit() must not end the caller
        raise load_error(source, sys.executable, describe(error)) from error
    check_version(source, sys.executable, loaded.framework, loaded.version)
    inputs, outputs = merged(request.specs, loaded.inputs, loaded.outputs)
    return InProcessModel(
        name=request.name,
        platform=source.platform,
        loaded=loaded,
        inputs=inputs,
        outputs=outputs,
        check=request.check,
    )
