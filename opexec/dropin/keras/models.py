"""`keras.models.load_model`, of a model in a worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from opexec import SpecError, TensorSpec

from ..eager import eager
from ..face import Face, load
from ..original import forwarding

__all__ = ["Model", "load_model"]

__getattr__ = forwarding(__name__, "keras.models", "load_model")

_BATCH = 32
"""Rows that Keras predicts at a time unless told otherwise."""


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, str] | None = None,
    compile: bool = False,
    safe_mode: bool = True,
    *,
    env: Any = None,
    **options: Any,
) -> Model:
    """Load a ``.keras`` or ``.h5`` file, or the SavedModel folder that Keras 2 wrote, where the worker has Keras 2. `env` and further keywords: see `opexec.load`.

    `custom_objects` tells where the worker finds what the file names: ``{"Name": "file.py:Name"}``.
    `compile` makes no difference: it is about training, which a model in another process does not do.
    """
    if custom_objects:
        if not all(isinstance(place, str) for place in custom_objects.values()):
            raise TypeError(
                "custom_objects has objects of this process; expected where the worker finds them: {'Name': 'file.py:Name'} or "
                "{'Name': 'package.module:Name'}"
            )
        options["options"] = {**options.get("options", {}), "custom_objects": dict(custom_objects)}
    if not safe_mode:
        raise ValueError(
            "safe_mode=False would have the worker run code from the file; it cannot be turned off"
        )
    options.setdefault("platform", "keras")
    model, _ = load(filepath, ".keras", env=env, **options)
    return Model(model)


class Model(Face):
    """As a loaded `keras.Model`, for inference."""

    @property
    def name(self) -> str:
        return self.opexec_model.name

    @property
    def input_names(self) -> list[str]:
        return [spec.name for spec in _known(self.opexec_model.inputs)]

    @property
    def output_names(self) -> list[str]:
        return [spec.name for spec in _known(self.opexec_model.outputs)]

    @property
    def input_shape(self) -> Any:
        """The shape with None for sizes that vary, ``(None, 4)``; a list of them where there are several inputs."""
        return _shapes(_known(self.opexec_model.inputs))

    @property
    def output_shape(self) -> Any:
        return _shapes(_known(self.opexec_model.outputs))

    def __call__(self, inputs: Any, training: bool | None = None, mask: None = None) -> Any:
        """`inputs` is an array, a list of arrays, or a dict by name. Gives what the model gives: an array, or several.

        Where tensors go in tensors come out; otherwise numpy arrays, which have the tensors' `numpy()`.
        """
        if training:
            raise ValueError(
                "a model in another process is for inference: it cannot be called with training=True"
            )
        if mask is not None:
            raise ValueError("mask is not None; a model in another process takes none")
        return eager(self._results(self._named(inputs)))

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: None = None,
        callbacks: None = None,
    ) -> Any:
        """numpy arrays for all rows of `x`, `batch_size` (32) at a time. `verbose` prints nothing."""
        if steps is not None or callbacks:
            raise ValueError(
                "predict takes arrays, and neither steps nor callbacks, for a model in another process"
            )
        named = _in_numpy(self._named(x))
        size = _BATCH if batch_size is None else batch_size
        if size < 1:
            raise ValueError(
                f"batch_size is {batch_size}; expected a positive number of rows, or None for {_BATCH}"
            )
        counts = {len(value) for value in named.values()}
        if len(counts) != 1:
            raise SpecError(f"the inputs have {sorted(counts)} rows; expected the same number in each")
        (rows,) = counts
        parts = [
            self._results({name: value[at : at + size] for name, value in named.items()})
            for at in range(0, rows, size) or (0,)
        ]
        return _joined(parts)

    def predict_on_batch(self, x: Any) -> Any:
        """numpy arrays for all rows of `x`, in one call."""
        return self._results(_in_numpy(self._named(x)))

    def _named(self, inputs: Any) -> dict[str, Any]:
        """The inputs by name, numpy arrays converted to the dtypes that the model takes, as Keras converts them."""
        specs = _known(self.opexec_model.inputs)
        if isinstance(inputs, Mapping):
            named = dict(inputs)
        else:
            several = isinstance(inputs, list | tuple) and all(hasattr(one, "shape") for one in inputs)
            values = list(inputs) if several else [inputs]
            if len(values) != len(specs):
                raise SpecError(f"expected {len(specs)} inputs, {self.input_names}; got {len(values)}")
            named = {spec.name: value for spec, value in zip(specs, values)}
        for spec in specs:
            value, wanted = named.get(spec.name), spec.numpy_dtype
            if isinstance(value, np.ndarray) and value.dtype != wanted and wanted is not None:
                named[spec.name] = value.astype(wanted)
        return named

    def _results(self, named: dict[str, Any]) -> Any:
        return self.opexec_model(**named)


def _known(specs: tuple[TensorSpec, ...] | None) -> tuple[TensorSpec, ...]:
    if specs is None:
        raise AttributeError(
            "the model's file does not tell its inputs and outputs; load it with inputs= and outputs="
        )
    return specs


def _in_numpy(named: dict[str, Any]) -> dict[str, Any]:
    """With numpy arrays for tensors; lists are the spec's to convert."""
    return {name: np.asarray(value) if hasattr(value, "shape") else value for name, value in named.items()}


def _shapes(specs: tuple[TensorSpec, ...]) -> Any:
    shapes = [
        None if spec.shape is None else tuple(size if isinstance(size, int) else None for size in spec.shape)
        for spec in specs
    ]
    return shapes[0] if len(shapes) == 1 else shapes


def _joined(parts: list[Any]) -> Any:
    """The results of batches as one, of the same structure."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: _joined([part[name] for part in parts]) for name in first}
    if isinstance(first, list | tuple):
        return type(first)(_joined([part[index] for part in parts]) for index in range(len(first)))
    return np.concatenate(parts)
