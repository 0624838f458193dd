"""`load`: from what the user names to a running model."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..batching.model import BatchedModel
from ..batching.policy import BatchPolicy
from ..inprocess import InProcessModel
from ..isolated import IsolatedModel
from ..model import Model
from ..processes.sandbox import Sandbox
from ..supervision.policies import RestartPolicy
from ..workers import platforms
from .launch import Launch, Report, Turn, check_version, load_error_here, merged, message
from .request import EnvironmentGiven, Request, SpecsGiven

if TYPE_CHECKING:
    from ..package import Limits


def load(
    source: str | os.PathLike[str],
    *,
    env: EnvironmentGiven = None,
    platform: str | None = None,
    options: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
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
    memory_limit: int | str | None = None,
    nice: int = 0,
    open_files: int | None = None,
    core_dumps: bool = False,
    cwd: str | os.PathLike[str] | None = None,
    sandbox: Sandbox | bool = False,
    restart: bool | RestartPolicy = True,
    retries: int = 0,
    grace: float | None = 5.0,
    load_timeout: float | None = 600.0,
    while_restarting: str = "wait",
    replicas: int = 1,
    max_pending: int | None = None,
    when_full: str = "error",
    max_calls: int | None = None,
    max_memory: int | str | None = None,
    batch: BatchPolicy | None = None,
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
    `limits`: how large a package may be: an `opexec.package.Limits`, or None for its defaults.
    `isolation`: ``"process"``, or ``"none"`` to run the same platform code in this process, in this interpreter. A timeout ends nothing then;
    `env`, `cpus`, `env_vars`, `wait`, `wait_ready`, `shm_limit`, `core_dumps` and what is about supervision have no effect; `batch`, `sandbox` and
    the other limits are refused.
    `inputs`, `outputs`: the specs, where the model does not carry them or others are wanted. Without any, nothing is checked.
    `device`: ``"cpu"``, or ``"cuda:N"``, the Nth GPU of those that this process may use: the worker sees that one alone.
    `timeout`: seconds that a call may take unless it says otherwise.
    `wait`: how a caller waits for an answer: ``"adaptive"``, ``"block"`` (least CPU) or ``"spin"`` (least latency: it looks for a millisecond before it sleeps).
    `threads`: how many threads the model's framework may compute with; in a worker it takes effect before the framework is imported. By
    default as many as there are `cpus`, if these are given, else what the framework chooses.
    `cpus`: numbers of the cores that the worker may run on.
    `env_vars`: environment variables of the worker, over the caller's and those of `env`; None unsets one.
    `shm_limit`: most shared memory of this model, in bytes or as text (``"512MiB"``).
    `memory_limit`: most private memory of the worker, in bytes or as text (``"2GiB"``); shared memory and files that are mapped do not count. What
    goes past it fails in the model, as a ModelError, or ends the worker (docs/limits.md).
    `nice`: what is added to the caller's niceness for the worker, up to 19.
    `open_files`: how many files the worker may have open; by default as many as the caller.
    `core_dumps`: True to let a crash of the worker leave a core dump where the caller's would.
    `cwd`: the worker's working directory; by default the caller's.
    `sandbox`: True, or a `Sandbox` with exceptions, to run the worker by bubblewrap without network, in a read-only file system where home folders
    and temporary ones are empty but for what the model needs, and with no process to see but its own.
    `restart`: whether a worker that died is replaced, and when (docs/supervision.md): True, False or a `RestartPolicy`. Calls that were in flight
        fail with WorkerDied.
    `retries`: how often a call that met WorkerDied is made again. More than 0 declares the model safe to repeat: the worker may have run the
        call, in part or whole, before it died.
    `grace`: seconds that a worker has, past the deadline of a call that it is at, before it is killed and replaced; None for any time. One that
        gets on with its calls, or is at one for which somebody still waits, is left alone.
    `load_timeout`: seconds that a worker has to load the model, the first time and each time that it is replaced, once it has started; None for
        any time. One that takes longer is killed: that is a LoadError, and for a replacement a crash. To build the environment, and to wait
        for its turn in a `Supervisor`, takes nothing of it.
    `while_restarting`: whether calls made while no worker is there ``"wait"`` for one until their deadline, or ``"fail"`` at once with WorkerDied.
    `replicas`: how many workers the model has. A call goes to the one with the least to do.
    `max_pending`: most calls under way or waiting at a time; `when_full`: what becomes of one more: ``"error"`` (Overloaded) or ``"wait"`` until
        its deadline.
    `max_calls`, `max_memory`: after so many calls, or above so much private memory of its process (bytes or text, ``"2GiB"``; shared memory and
        files that are mapped do not count), a worker is replaced by one that is loaded beside it; no call fails. Calls of attached processes count. Looked at
        twice a second, not at each call.
    `batch`: a `BatchPolicy` to have calls that are made at the same time joined and run as one (docs/batching.md). It needs specs.
    `wait_ready`: False to return at once, while the environment is built and the model loaded in the background; the first call waits.
    `name`: what it is called in messages and logs; by default, after its source.
    `check`: False to check no call against the specs.

    Raises LoadError (its `stage` says how far it came), BuildError, WorkerDied, OutOfSharedMemory, SpecError, and PackageError for a broken
    package; with ``wait_ready=False`` what happens in the background is raised by the calls.
    """
    request = Request(
        source=source,
        env=env,
        platform=platform,
        options=options,
        limits=limits,
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
        memory_limit=memory_limit,
        nice=nice,
        open_files=open_files,
        core_dumps=core_dumps,
        cwd=cwd,
        sandbox=sandbox,
        restart=restart,
        retries=retries,
        grace=grace,
        load_timeout=load_timeout,
        while_restarting=while_restarting,
        replicas=replicas,
        max_pending=max_pending,
        when_full=when_full,
        max_calls=max_calls,
        max_memory=max_memory,
        batch=batch,
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
    supervision = request.supervision
    if request.batch is not None:
        # It is calls that are counted, and not batches.
        supervision = dataclasses.replace(supervision, max_pending=None)
    model = IsolatedModel(
        name=request.name,
        platform=request.parsed.platform,
        launch=Launch(request, report, turn),
        check=request.check,
        timeout=request.timeout,
        wait=request.wait,
        shm_limit=request.most_memory,
        supervision=supervision,
        background=not wait_ready,
    )
    if request.batch is None:
        return model
    batched = BatchedModel(model, request.batch, request.supervision, request.timeout)
    if wait_ready:
        try:
            batched.wait_ready()
        except BaseException:
            batched.close()
            raise
    return batched


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
        raise load_error_here(source, error) from error
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
