"""Model: what the user holds.

`infer`, the drop-in call, `submit` and `infer_async` are four ways to make the same call. What differs between a model in a worker process and one
in this process lies in two subclasses, `isolated.IsolatedModel` and `inprocess.InProcessModel`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import canonical_dtype
from .errors import OpexecError, SpecError
from .metrics.errors import ErrorCounts
from .metrics.latency import Latency, LatencySummary
from .spec import TensorSpec, concrete_shape, fit_shape

if TYPE_CHECKING:
    from .sharing.shared import Share


@dataclass(frozen=True)
class WorkerInfo:
    """One worker of a model, as it is now.

    `state` is ``"starting"``, ``"loading"``, ``"ready"``, ``"busy"`` (calls in flight), ``"draining"`` (it finishes its calls and gets no more),
    ``"restarting"`` (it died, and another is to come), ``"failed"`` (none is to come: it could not be loaded, or died too often), or
    ``"stopped"`` (it was closed, or died and is not replaced).
    `reason` says why it is in that state, and `since` when that began, in seconds as of `time.time`; for ``"busy"``, when somebody first looked
    while it was at that call. `restarts` counts how often this place among the replicas got another worker. `pid` is None before the
    process has started, and what is not known yet is an empty text. `limited_by` says what holds the worker to its `memory_limit`:
    ``"RLIMIT_DATA"``, and the folder of its control group where it has one; it is empty without a limit.
    """

    pid: int | None
    interpreter: str
    python: str
    numpy: str
    framework: str
    framework_version: str
    state: str
    reason: str = ""
    since: float = 0.0
    restarts: int = 0
    limited_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchStats:
    """What a model with a `BatchPolicy` has joined (docs/batching.md).

    `calls`: calls that went in batches, those that went alone included; `sizes`: rows of a batch -> how many batches had so many;
    `max_size`: the most rows that the policy allows.
    """

    calls: int
    sizes: Mapping[int, int]
    max_size: int

    @property
    def batches(self) -> int:
        return sum(self.sizes.values())

    @property
    def rows(self) -> int:
        return sum(size * count for size, count in self.sizes.items())

    @property
    def mean_size(self) -> float:
        """Rows of a batch on average; 0 where there was none."""
        return self.rows / self.batches if self.sizes else 0.0

    @property
    def mean_calls(self) -> float:
        """Calls of a batch on average; 0 where there was none."""
        return self.calls / self.batches if self.sizes else 0.0

    @property
    def fill(self) -> float:
        """How full batches were on average, 1 being `max_size` rows; calls that went alone because they have more rows count as they are."""
        return self.mean_size / self.max_size


@dataclass(frozen=True)
class ModelStats:
    """Counts since the model was loaded.

    `calls` sent; `bytes_copied_in`: input bytes that opexec copied into shared memory; `bytes_copied_out`: output bytes that the worker
    copied into shared memory; `shared_memory`: bytes of shared memory held now; `blocks_held`: output blocks that the caller's arrays hold.
    `errors`: calls that raised, by the class of the error (``{"ModelError": 2}``); `restarts`: how often a worker was replaced; `in_flight`:
    calls sent that have no answer yet. `latency`: for each stage of a call (`opexec.metrics.STAGES`) how long it took; short calls are sampled
    (docs/observability.md); ``"queue"`` is there once calls have waited to be sent. It is empty for a model in this process. `batches`: what was joined, for a model with a `BatchPolicy`; `latency` is
    that of batches then.
    """

    calls: int
    bytes_copied_in: int
    bytes_copied_out: int
    shared_memory: int
    blocks_held: int
    errors: Mapping[str, int] = field(default_factory=dict)
    restarts: int = 0
    in_flight: int = 0
    latency: Mapping[str, LatencySummary] = field(default_factory=dict)
    batches: BatchStats | None = None


class Model(ABC):
    """A loaded model. Made by `opexec.load`; a context manager that closes it.

    All methods may be called from any thread.
    """

    #: What the model is called in messages and logs.
    name: str
    #: What runs it: ``"python"``, ``"onnx"``, ``"tensorflow"`` and so on.
    platform: str
    #: The specs of its inputs and outputs, or None where nothing is known and nothing is checked. While the model is loading, whoever asks
    #: waits for it.
    inputs: tuple[TensorSpec, ...] | None
    outputs: tuple[TensorSpec, ...] | None
    #: How long the stages of its calls take; None for a model in this process. `stats` has the summary.
    latency: Latency | None = None
    #: Its failed calls.
    failures: ErrorCounts

    @abstractmethod
    def infer(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Run the model on `inputs`, name -> array, and return its outputs, name -> array.

        Arrays may be numpy's, or anything with ``__dlpack__`` or ``__array__``; Python numbers, texts and lists are taken where a spec gives their
        dtype. Outputs are writable views of shared memory, good for as long as they are held; they are arrays of torch, tensorflow, jax or
        cupy if all inputs were.
        A result that the model did not name is called ``output``, or ``output_0``, ``output_1`` and so on.

        `outputs` names the wanted subset. `timeout` is in seconds; without it the model's own holds.

        Raises SpecError, ModelError, CallTimeout, WorkerDied, OutOfSharedMemory, Overloaded, ModelClosed.
        """

    @abstractmethod
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the model as if it were called in process; returns what the model returned (array, tuple, list, nested dict).

        Positional arguments go to the inputs of the spec in its order, or, without a spec, to the model as they are.
        """

    @abstractmethod
    def submit(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> Future[dict[str, Any]]:
        """Start `infer` and return a Future of its result. Bad inputs raise here, at once.

        Its `cancel` succeeds until the answer is there; the answer is then discarded when it comes.
        """

    @abstractmethod
    async def infer_async(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """`infer` for asyncio: the event loop runs on while the model works."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether a call would be sent at once: False while the model is loading, where it could not be loaded, and when it is closed or dead."""

    @abstractmethod
    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until the model is loaded, for `timeout` seconds at most. Calls wait by themselves.

        Raises what loading raised, as every call does then; CallTimeout, after which it goes on loading; ModelClosed.
        """

    @abstractmethod
    def restart(self) -> None:
        """Replace every worker, dead or alive, by a new one with the same model; back when that is ready. One that could not be loaded, or that
        died too often, is tried again.

        With several replicas one after the other is replaced, by a new one that is loaded beside it, and finishes its calls: none fails. With
        one, calls in flight fail with WorkerDied. Arrays from `empty` stay good. Raises what `load` raises, and OpexecError for a
        model in this process, which has no worker.
        """

    @abstractmethod
    def swap(self, source: str | os.PathLike[str], *, wait: bool = True, **arguments: Any) -> None:
        """Put another model in the place of this one while calls go on: its workers are loaded beside the old ones, then calls go to them, and
        the old ones end once their calls have. No call fails; arrays from `empty` stay good.

        `arguments` are those of `load` that say how it is loaded: `env`, `platform`, `options`, `inputs`, `outputs`, `limits`, `device`, `threads`,
        `cpus`, `env_vars`. The specs of this model stay as they are, and so do its limits, its working directory and its sandbox. `wait`: False to
        return once calls go to the new one.

        Raises SpecError where the new model does not implement the problem that this one's specs are (`Problem.check`), or tells no specs where
        this one has some and `inputs` and `outputs` do not, and what `load` raises; the old one goes on then.
        """

    def share(self, name: str | None = None) -> Share:
        """Let other processes of this user call the model's workers: by `opexec.attach` with `name`, which is the model's own if it is left out
        (docs/sharing.md).

        It ends with the model, or when what is returned is closed. Raises ValueError for a name that none can have; OpexecError if a model is
        shared under it already, or if this one has no worker of its own.
        """
        raise OpexecError(f"model {self.name!r} runs in this process; only one in a worker can be shared")

    @abstractmethod
    def close(self, drain: bool = False, timeout: float | None = None) -> None:
        """End the model. Calls in flight fail with ModelClosed, or, with `drain`, are finished first, for `timeout` seconds at most; new ones
        are refused. Arrays it gave stay good. Closing twice does nothing."""

    @property
    @abstractmethod
    def workers(self) -> tuple[WorkerInfo, ...]:
        """The processes that run the model."""

    @abstractmethod
    def stats(self) -> ModelStats:
        """What the model has done, and what it holds."""

    def empty(self, name: str, shape: Sequence[int] | None = None, dtype: Any = None) -> np.ndarray[Any, Any]:
        """An uninitialised, writable array for the input `name`, in shared memory: a call with it, or with a part of it, copies nothing.

        Of more than eight inputs those of up to 4 KiB are copied all the same, which is quicker.

        `shape` may be left out where the spec fixes it; `dtype` is the spec's, and must be given where there is none. The array is the caller's to
        reuse for any number of calls, and stays good when a worker is replaced. Raises SpecError if it does not fit the spec, OutOfSharedMemory.
        """
        spec = self._input_spec(name)
        if spec is None:
            if shape is None or dtype is None:
                raise SpecError(f"input {name!r} has no spec: give both shape and dtype")
            spec = TensorSpec(name, dtype, None)
        wanted = spec.numpy_dtype
        if wanted is None:
            raise SpecError(
                f"input {name!r} is {spec.dtype}, whose elements have no fixed size: pass an array of objects to the call"
            )
        if dtype is not None and canonical_dtype(dtype) != spec.dtype:
            raise SpecError(f"input {name!r}: expected dtype {spec.dtype}, got {canonical_dtype(dtype)}")
        return self._empty(concrete_shape(spec, {}) if shape is None else fit_shape(spec, shape), wanted)

    @abstractmethod
    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]: ...

    def _input_spec(self, name: str) -> TensorSpec | None:
        if self.inputs is None:
            return None
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise SpecError(
            f"there is no input {name!r}; the model's inputs are {', '.join(repr(s.name) for s in self.inputs)}"
        )

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[str, ...], list[Any], int]:
        """A drop-in call's ``(names, values, how many are positional for the model)``."""
        if not args:
            return tuple(kwargs), list(kwargs.values()), 0
        if self.inputs is None:
            names = (*map(str, range(len(args))), *kwargs)
            return names, [*args, *kwargs.values()], len(args)
        if len(args) > len(self.inputs):
            raise SpecError(f"the model takes {len(self.inputs)} inputs, got {len(args)} positional ones")
        names = tuple(spec.name for spec in self.inputs[: len(args)])
        for name in names:
            if name in kwargs:
                raise SpecError(f"input {name!r} is given twice: by position and by name")
        return (*names, *kwargs), [*args, *kwargs.values()], 0

    def __repr__(self) -> str:
        one = self.workers[0]
        if not one.framework:
            return f"<Model {self.name!r}: {self.platform}, {one.state}>"
        return f"<Model {self.name!r}: {one.framework} {one.framework_version} in Python {one.python}, pid {one.pid}, {one.state}>"

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def subset(results: dict[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """The outputs that the caller named, in that order. Raises SpecError for one that the model did not give."""
    try:
        return {name: results[name] for name in outputs}
    except KeyError as error:
        raise SpecError(
            f"output {error.args[0]!r} was asked for; the model gave {', '.join(map(repr, results)) or 'none'}"
        ) from None
