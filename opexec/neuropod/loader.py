"""`load_neuropod`, as Neuropod has it: a package in, an executor out. The model runs in a worker process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import OpexecError, SpecError
from ..loading.load import load
from ..machine.devices import VISIBLE
from ..model import Model
from ..package import Package, read
from ..spec import TensorSpec
from .errors import also


class NeuropodExecutor:
    """A loaded package. Also a context manager, which ends the worker."""

    def __init__(self, package: Package, model: Model) -> None:
        self._package = package
        self._model = model
        self._texts = text_names(package.inputs)

    @property
    def name(self) -> str:
        return self._package.name

    @property
    def platform(self) -> str:
        return self._package.platform

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """A dict of name, dtype and shape for each input."""
        return [_as_dict(spec) for spec in self._package.inputs]

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """A dict of name, dtype and shape for each output."""
        return [_as_dict(spec) for spec in self._package.outputs]

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Run the model: numpy arrays by name in and out. Texts come as numpy's unicode arrays; they may go in as bytes, in UTF-8.

        Raises SpecError, a ValueError, for inputs or outputs that do not fit the spec, ModelError for what the model raises, and the
        other errors of `opexec.Model.infer`; each is a RuntimeError too.
        """
        try:
            return _with_unicode(self._model.infer(self._taken(inputs)))
        except OpexecError as error:
            raise also(error, RuntimeError) from error.__cause__

    def infer_async(self, inputs: Mapping[str, Any]) -> asyncio.Future[dict[str, np.ndarray[Any, Any]]]:
        """`infer` for asyncio: the future of its result, in the event loop that runs or else the current one.

        The call is sent at once: inputs may be changed when this has returned. Raises SpecError here for inputs that do not fit the spec.
        """
        loop = asyncio.get_event_loop()
        try:
            answer = asyncio.wrap_future(self._model.submit(self._taken(inputs)), loop=loop)
        except OpexecError as error:
            raise also(error, RuntimeError) from error.__cause__

        async def result() -> dict[str, np.ndarray[Any, Any]]:
            try:
                return _with_unicode(await answer)
            except OpexecError as error:
                raise also(error, RuntimeError) from error.__cause__

        return loop.create_task(result())

    def _taken(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(inputs, Mapping):
            raise SpecError(f"expected a dict of arrays by name, got {type(inputs).__name__}")
        return decoded(inputs, self._texts)

    def close(self) -> None:
        self._model.close()

    def __enter__(self) -> NeuropodExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<NeuropodExecutor {self.name!r}, {self.platform}>"


def load_neuropod(
    neuropod_path: str | os.PathLike[str],
    visible_gpu: int | None = 0,
    load_custom_ops: bool = True,
    *,
    _always_use_native: bool = True,
    **more: Any,
) -> NeuropodExecutor:
    """Load a package, a folder or a zip, in a worker.

    `visible_gpu`: the number of the GPU to run on, the CPU where there is none that this process may use; None for the CPU. `load_custom_ops`: False to
    leave the package's custom ops alone. `more`: arguments of `opexec.load`, as ``env=Environment(...)`` or ``timeout=10``.
    `_always_use_native` chooses between two implementations in Neuropod; here there is one, whatever it says.

    Raises PackageError for what is no package or a broken one, LoadError, BuildError and the others of `opexec.load`; each is a
    RuntimeError too.
    """
    try:
        package = read(neuropod_path, limits=more.get("limits"))
        return NeuropodExecutor(
            package, load(package.path, **load_arguments(visible_gpu, load_custom_ops, **more))
        )
    except OpexecError as error:
        raise also(error, RuntimeError) from error.__cause__


def load_arguments(
    visible_gpu: int | None = 0, load_custom_ops: bool = True, *, _always_use_native: bool = True, **more: Any
) -> dict[str, Any]:
    """What `opexec.load` is given for these arguments of `load_neuropod`."""
    if not load_custom_ops:
        more["options"] = {**(more.get("options") or {}), "load_custom_ops": False}
    if visible_gpu is not None and "device" not in more and _has_gpu():
        more["device"] = f"cuda:{visible_gpu}"
    return more


def text_names(specs: Iterable[TensorSpec]) -> list[str]:
    """The tensors that are texts."""
    return [spec.name for spec in specs if spec.dtype == "string"]


def decoded(inputs: Mapping[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """The inputs, with bytes as texts where `texts` has their names."""
    given = dict(inputs)
    for name in texts:
        array = given.get(name)
        if isinstance(array, np.ndarray) and array.dtype.kind == "S":
            given[name] = np.char.decode(array, "utf-8")
    return given


def _with_unicode(answer: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: array.astype(str) if array.dtype.kind in "OT" else array for name, array in answer.items()}


def _has_gpu() -> bool:
    hidden = os.environ.get(VISIBLE) in ("", "-1")
    return os.path.exists("/dev/nvidiactl") and not hidden


def _as_dict(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": None if spec.shape is None else list(spec.shape),
    }
