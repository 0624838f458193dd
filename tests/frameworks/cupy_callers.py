"""cupy's arrays in, cupy's arrays out. Run by test_cupy_callers.py, where cupy is installed and a GPU is at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import cupy
import numpy as np
import pytest

import opexec
from opexec import Model
from tests.loaded import source

KINDS = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 complex64 complex128"


@pytest.fixture(params=["process", "none"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with opexec.load(source("echo"), isolation=request.param) as model:
        yield model


def check(result: Any, x: np.ndarray[Any, Any]) -> None:
    assert isinstance(result, cupy.ndarray)
    np.testing.assert_array_equal(cupy.asnumpy(result), x, strict=True)


@pytest.mark.parametrize("dtype", KINDS.split())
def test_what_went_in_on_the_gpu_comes_out_on_it(dtype: str, model: Model) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtype)
    given = cupy.asarray(x)
    check(model(x=given)["x"], x)
    check(model(x=given.T)["x"], x.T)
    check(model.submit({"x": given}).result(timeout=60)["x"], x)
    check(asyncio.run(model.infer_async({"x": given}))["x"], x)


def test_beside_other_arrays_outputs_are_numpys(model: Model) -> None:
    x = np.arange(3.0)
    results = model.infer({"x": cupy.asarray(x), "y": x})
    assert {type(result) for result in results.values()} == {np.ndarray}


def test_what_is_computed_still_is_waited_for(model: Model) -> None:
    x = cupy.ones((2000, 2000), np.float32)
    for _ in range(10):
        x = x @ x / np.float32(2000)
    check(model(x=x)["x"], np.ones((2000, 2000), np.float32))
