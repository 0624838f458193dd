"""Every error a user can get.

Each message says what was expected, what came and what to do. All of them derive from `OpexecError`, so one `except` clause
catches whatever opexec raises; where Python has a matching built-in (ValueError, TimeoutError, MemoryError) the class is that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .credentials import without_credentials


class OpexecError(Exception):
    """Base class of every error raised by opexec."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own way calls the class with `args` alone, which the classes with further arguments refuse.
        return rebuilt, (self.__class__, self.args, self.__dict__)


def rebuilt(kind: type[OpexecError], args: tuple[object, ...], attributes: dict[str, object]) -> OpexecError:
    """An error of the class `kind` with these arguments and attributes, as it was made elsewhere."""
    base: Any = kind
    while (
        base.__module__ != "builtins"
    ):  # the one whose fields it has: MemoryError, for one, is a base without any
        base = base.__base__
    error: OpexecError = base.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class SpecError(OpexecError, ValueError):
    """Inputs, or a model's outputs, do not fit the spec: a name, dtype, rank, size or symbol."""


class BuildError(OpexecError):
    """An environment cannot be built: no interpreter fits, or the requirements cannot be installed together.

    The message has no user names and passwords in its URLs, whoever wrote them there.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(without_credentials(message))


class PackageError(OpexecError, ValueError):
    """A model package (or a problem's file) is broken, unsafe or not what it says it is.

    `package` is its path; `file` the file in it that is wrong, and `field` the place in that file (``"input_spec[0].dtype"``), each None
    where there is no such thing.
    """

    def __init__(
        self, message: str, *, package: str, file: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(_located(message, package, file, field))
        self.package = package
        self.file = file
        self.field = field


def _located(message: str, *places: str | None) -> str:
    return ": ".join([*(_printable(place) for place in places if place is not None), message])


def _printable(name: str) -> str:
    """A name out of a file that nobody has checked, made fit for a terminal."""
    shown = name if name.isprintable() else ascii(name)[1:-1]
    return shown if len(shown) <= 300 else shown[:300] + "..."


class LoadError(OpexecError):
    """A model could not be loaded.

    `stage` is where it stopped: ``"source"`` (what to load was not understood), ``"spawn"`` (the interpreter did not start),
    ``"handshake"`` (the worker started but cannot serve), or ``"load"`` (the model's file or factory failed, or took longer than
    ``load_timeout``); ``"device"``: there is no such GPU; ``"attach"``: nobody shares a model under the name, or its owner refuses; ``"several"``: of the models that `Supervisor.load_all` was to load, those in `failures` failed, each with its own error.
    """

    def __init__(
        self, message: str, *, stage: str, failures: Mapping[str, BaseException] | None = None
    ) -> None:
        super().__init__(message)
        self.stage = stage
        self.failures = dict(failures or {})


class FrameworkNotFound(PackageError, LoadError, RuntimeError):
    """Nothing that a package may run in has its framework, in a version that the package allows.

    `package`, `file` and `field` say where it asks for that: in ``"platform_version_semver"`` of its ``config.json``, or in ``"platform"``
    where no version at all was found. `stage` is ``"load"``.
    """

    def __init__(self, message: str, *, package: str, field: str) -> None:
        self.package = package
        self.file = "config.json"
        self.field = field
        # Not PackageError's, whose super() is LoadError here.
        LoadError.__init__(self, _located(message, package, self.file, field), stage="load")


class WorkerDied(OpexecError):
    """The worker process ended while it was needed.

    `exit_code` is its exit status, or None if a signal ended it; `signal` is that signal's name (``"SIGKILL"``) or None;
    `stderr` holds its last lines of standard error; `stage` says what it was doing: ``"spawn"``, ``"handshake"``,
    ``"load"``, ``"call"`` or ``"idle"``.
    """

    def __init__(
        self,
        message: str,
        *,
        pid: int,
        exit_code: int | None,
        signal: str | None,
        stderr: tuple[str, ...],
        stage: str,
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.exit_code = exit_code
        self.signal = signal
        self.stderr = stderr
        self.stage = stage


class ModelError(OpexecError):
    """The model raised an exception; the worker lives on and serves the next call.

    `type` is the exception's qualified class name, `message` its text, `traceback` the worker's traceback as text
    (the exception object itself never crosses the process boundary).
    """

    def __init__(self, type: str, message: str, traceback: str) -> None:
        super().__init__(f"the model raised {type}: {message}")
        self.type = type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.args[0]}\n\n{self.traceback}" if self.traceback else str(self.args[0])


class CallTimeout(OpexecError, TimeoutError):
    """A call's deadline passed before the answer came.

    The worker still runs the call, and its late answer is discarded; if it makes no progress for as long as its model's ``grace``, it is killed.
    """


class Overloaded(OpexecError):
    """A model has as many calls under way as its ``max_pending`` allows; the call was not sent."""


class OutOfSharedMemory(OpexecError, MemoryError):
    """Shared memory for a tensor is not to be had; names the limit, what is free, and who holds blocks."""


class ModelClosed(OpexecError):
    """The model was closed, by `close()` or by leaving its `with` block, and takes no more calls."""


class ProtocolError(OpexecError):
    """A worker wrote something into shared memory that breaks the protocol; it is killed, because nothing it says can be trusted."""
