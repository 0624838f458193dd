"""A model in the caller's own process: the same platform code as in a worker, on the caller's own arrays.

What ``isolation="none"`` gives: the baseline that an isolated model is compared with, and the same results.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from operator import attrgetter
from typing import Any

import numpy as np

from .calling.array_kinds import ArrayKind, kind_of
from .calling.arrays import to_numpy
from .calling.signature import check_names, check_texts, signatures, split
from .calling.steps import deadline_in, time_left
from .errors import ModelClosed, ModelError, OpexecError
from .ipc.wire import is_text
from .metrics.errors import ErrorCounts
from .model import Model, ModelStats, WorkerInfo, subset
from .spec import TensorSpec, bind_inputs, bind_outputs
from .workers.failure import describe
from .workers.platforms import Platform
from .workers.structure import Structure, flatten, unflatten

_SIGNATURES_KEPT = 4096

#: Names, dtypes and shapes of a call's tensors.
Signature = tuple[tuple[str, ...], tuple[Any, ...], tuple[Any, ...]]

_dtype = attrgetter("dtype")
_shape = attrgetter("shape")


class InProcessModel(Model):
    """See `Model`. Calls run one at a time, in the thread that makes them; nothing can end a call early, so a timeout has no effect."""

    def __init__(
        self,
        *,
        name: str,
        platform: str,
        loaded: Platform,
        inputs: tuple[TensorSpec, ...] | None,
        outputs: tuple[TensorSpec, ...] | None,
        check: bool,
    ) -> None:
        self.name = name
        self.platform = platform
        self.inputs = inputs
        self.outputs = outputs
        self._model = loaded
        self._check = check
        self._symbols: dict[Signature, Mapping[str, int]] = {}
        self._approved: set[tuple[Signature, Signature]] = set()
        self._calls = 0
        self.failures = ErrorCounts()
        #: No call is taken any more; and none that was submitted begins any more.
        self._closed = self._dropped = False
        self._one_at_a_time = threading.RLock()
        self._submitting = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._submitted: set[Future[dict[str, Any]]] = set()

    def infer(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        names, values = split(inputs)
        arrays, kind = self._take(names, values)
        return self._infer(names, arrays, kind, outputs)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        names, values, positional = self._named(args, kwargs)
        arrays, kind = self._take(names, values)
        leaves, structure = self._run(names, arrays, positional)
        return unflatten(structure, _as_kind(leaves, kind))

    def submit(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> Future[dict[str, Any]]:
        names, values = split(inputs)
        arrays, kind = self._take(names, values)
        self._check_inputs(names, arrays)

        def run() -> dict[str, Any]:
            if self._dropped:
                raise self._is_closed()
            return self._infer(names, arrays, kind, outputs)

        with self._submitting:
            self._check_open()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"opexec-{self.name}")
            future = self._threads.submit(run)
            self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return future

    async def infer_async(
        self, inputs: Mapping[str, Any], *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        return await asyncio.wrap_future(self.submit(inputs, outputs=outputs))

    def _infer(
        self, names: tuple[str, ...], arrays: list[Any], kind: ArrayKind | None, outputs: Sequence[str] | None
    ) -> dict[str, Any]:
        leaves, structure = self._run(names, arrays, 0)
        results = dict(zip(structure.names, _as_kind(leaves, kind), strict=True))
        return results if outputs is None else subset(results, outputs)

    def _take(self, names: tuple[str, ...], values: list[Any]) -> tuple[list[Any], ArrayKind | None]:
        self._check_open()
        if {*map(type, values)} == {np.ndarray}:
            return values, None
        specs = {} if self.inputs is None else {spec.name: spec for spec in self.inputs}
        arrays = [to_numpy(value, specs.get(name), name) for name, value in zip(names, values, strict=True)]
        return arrays, kind_of(values)

    def _check_open(self) -> None:
        if self._closed:
            raise self._is_closed()

    def _is_closed(self) -> ModelClosed:
        return ModelClosed(f"model {self.name!r} is closed; load it again to call it")

    def _run(self, names: tuple[str, ...], arrays: list[Any], positional: int) -> tuple[list[Any], Structure]:
        try:
            signature, symbols = self._check_inputs(names, arrays)
            with self._one_at_a_time:
                self._calls += 1
                try:
                    bound = self._model.bind(
                        arrays[:positional], dict(zip(names[positional:], arrays[positional:], strict=True))
                    )
                    _, leaves, structure = flatten(self._model.run(bound, _reserve))
                except (Exception, SystemExit) as error:  # a model's sys.exit() must not end the caller
                    raise ModelError(**describe(error)) from error
            self._check_outputs(signature, symbols, structure.names, leaves)
        except OpexecError as error:
            self.failures.add(error)
            raise
        return leaves, structure

    # As with an isolated model, a signature that was found to fit the spec is not looked at again, unless it holds an array of objects:
    # it does not say whether they are texts or bytes.

    def _check_inputs(self, names: tuple[str, ...], arrays: list[Any]) -> tuple[Signature, Mapping[str, int]]:
        """The call's signature, and the values of its symbols."""
        signature = names, tuple(map(_dtype, arrays)), tuple(map(_shape, arrays))
        symbols = self._symbols.get(signature)
        if symbols is None:
            check_names(names)
            symbols = {}
            if self._check and self.inputs is not None:
                symbols = bind_inputs(self.inputs, signatures(names, arrays))
                check_texts(names, arrays)
            if not any(map(is_text, signature[1])):
                if len(self._symbols) > _SIGNATURES_KEPT:
                    self._symbols.clear()
                self._symbols[signature] = symbols
        return signature, symbols

    def _check_outputs(
        self, inputs: Signature, symbols: Mapping[str, int], names: tuple[str, ...], leaves: list[Any]
    ) -> None:
        if not self._check or self.outputs is None:
            return
        outputs = names, tuple(map(_dtype, leaves)), tuple(map(_shape, leaves))
        if (inputs, outputs) not in self._approved:
            bind_outputs(self.outputs, signatures(names, leaves), symbols)
            if not any(map(is_text, outputs[1])):
                if len(self._approved) > _SIGNATURES_KEPT:
                    self._approved.clear()
                self._approved.add((inputs, outputs))

    @property
    def ready(self) -> bool:
        return not self._closed

    def wait_ready(self, timeout: float | None = None) -> None:
        self._check_open()

    def restart(self) -> None:
        raise OpexecError(f"model {self.name!r} runs in this process: there is no worker to replace")

    def swap(self, source: str | os.PathLike[str], *, wait: bool = True, **arguments: Any) -> None:
        raise OpexecError(f"model {self.name!r} runs in this process: load the other one beside it")

    def close(self, drain: bool = False, timeout: float | None = None) -> None:
        deadline = None if timeout is None else deadline_in(timeout)
        with self._submitting:
            self._closed = True
            threads, submitted = self._threads, set(self._submitted)
        if drain:
            wait(submitted, time_left(deadline))
            left = time_left(deadline)
            if self._one_at_a_time.acquire(timeout=-1 if left is None else left):
                self._one_at_a_time.release()
        self._dropped = True
        if threads is not None:
            threads.shutdown(wait=False)

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        return (
            WorkerInfo(
                pid=os.getpid(),
                interpreter=sys.executable,
                python=platform.python_version(),
                numpy=np.__version__,
                framework=self._model.framework,
                framework_version=self._model.version,
                state="stopped" if self._closed else "ready",
            ),
        )

    def stats(self) -> ModelStats:
        return ModelStats(
            calls=self._calls,
            bytes_copied_in=0,
            bytes_copied_out=0,
            shared_memory=0,
            blocks_held=0,
            errors=self.failures.by_type(),
        )

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        self._check_open()
        return np.empty(shape, dtype)


def _reserve(specs: Sequence[tuple[str, Any, tuple[int, ...]]]) -> dict[str, Any]:
    return {name: np.empty(shape, dtype) for name, dtype, shape in specs}


def _as_kind(arrays: list[Any], kind: ArrayKind | None) -> list[Any]:
    return arrays if kind is None else [kind.from_numpy(array) for array in arrays]
