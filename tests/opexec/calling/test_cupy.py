"""cupy's arrays go in by way of host memory and come out on the GPU again, with a stand-in for cupy; tests/frameworks/cupy_callers.py has the real one."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Model
from opexec.calling.arrays import kind_of, to_numpy
from tests.loaded import source


class OnGpu:
    """As `cupy.ndarray`: it gives its elements to nobody who does not ask for a copy of them."""

    def __init__(self, elements: np.ndarray[Any, Any]) -> None:
        if elements.dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {elements.dtype}")
        self._elements = elements.copy()
        self.dtype, self.shape = elements.dtype, elements.shape

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __array__(self, *_: Any, **__: Any) -> None:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def get(self) -> np.ndarray[Any, Any]:
        return self._elements.copy()


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = types.SimpleNamespace(ndarray=OnGpu, asarray=OnGpu, asnumpy=OnGpu.get)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture(params=["process", "none"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with opexec.load(source("echo"), isolation=request.param) as model:
        yield model


@pytest.mark.parametrize(
    "dtype", "bool int8 uint16 int64 float16 float32 float64 complex64 complex128".split()
)
def test_what_went_in_on_a_gpu_comes_out_on_it(dtype: str, cupy: Any, model: Model) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtype)
    results = [
        model(x=cupy.asarray(x))["x"],
        model.infer({"x": cupy.asarray(x)})["x"],
        model.submit({"x": cupy.asarray(x)}).result(timeout=60)["x"],
        asyncio.run(model.infer_async({"x": cupy.asarray(x)}))["x"],
    ]
    for result in results:
        assert type(result) is OnGpu
        np.testing.assert_array_equal(result.get(), x, strict=True)


def test_beside_other_arrays_outputs_are_numpys(cupy: Any, model: Model) -> None:
    x = np.arange(3.0)
    results = model.infer({"x": cupy.asarray(x), "y": x})
    assert {type(result) for result in results.values()} == {np.ndarray}
    np.testing.assert_array_equal(results["x"], x)


def test_what_cupy_has_no_array_of_stays_numpys(cupy: Any) -> None:
    kind = kind_of([cupy.asarray(np.zeros(1))])
    assert kind is not None and kind.name == "cupy"
    for array in (np.array(["a"], object), np.array(["2026-01-01"], "M8[D]"), np.zeros(2, "i4, f4")):
        assert kind.from_numpy(array) is array


def test_without_cupy_its_arrays_are_refused_as_any_device_memory() -> None:
    with pytest.raises(opexec.SpecError, match="lies on a device"):
        to_numpy(OnGpu(np.zeros(1)), None, "x")
