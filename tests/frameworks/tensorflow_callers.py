"""TensorFlow's tensors in, TensorFlow's tensors out, over shared memory. Run by test_tensorflow_callers.py, where TensorFlow is installed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

import opexec
from opexec import Model, SpecError, TensorSpec
from opexec.calling.arrays import kind_of, snapshot, to_numpy
from tests.loaded import source

EXACT = "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64 complex64 complex128".split()
BITS = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def where(tensor: Any) -> int:
    """Where the elements of a tensor begin."""
    return address(np.asarray(memoryview(tensor)))


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    raw = np.zeros(int(np.prod(shape)) * np.dtype(dtype).itemsize + 64, np.uint8)
    begin = -address(raw) % 64
    return raw[begin : raw.size - 64 + begin].view(dtype).reshape(shape)


@pytest.fixture(params=["process", "none"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with opexec.load(source("echo"), isolation=request.param) as model:
        yield model


@pytest.mark.parametrize("dtype", EXACT)
def test_tensors_are_read_where_they_lie(dtype: str) -> None:
    tensor = tf.cast(tf.reshape(tf.range(6), (2, 3)), dtype)
    array = to_numpy(tensor, None, "x")
    assert array.dtype == dtype and address(array) == where(tensor)
    np.testing.assert_array_equal(array, tensor.numpy())
    assert (to_numpy(tf.Variable(tensor), None, "x") == array).all()


@pytest.mark.parametrize("dtype", BITS)
def test_tensors_keep_their_bits(dtype: str) -> None:
    tensor = tf.cast(tf.constant([0.5, -2.0]), dtype)
    array = to_numpy(tensor, None, "x")
    assert array.dtype == getattr(ml_dtypes, dtype) and array.tolist() == [0.5, -2.0]
    back = kind_of([tensor]).from_numpy(array)  # type: ignore[union-attr]
    assert back.dtype == tensor.dtype and tf.cast(back, tf.float32).numpy().tolist() == [0.5, -2.0]


@pytest.mark.parametrize("dtype", [*EXACT, "bfloat16"])
def test_outputs_are_tensors_over_the_same_memory(dtype: str) -> None:
    kind = kind_of([tf.zeros(1)])
    assert kind is not None and kind.name == "tensorflow"
    array = aligned((2, 3), getattr(ml_dtypes, dtype, dtype))
    tensor = kind.from_numpy(array)
    assert tensor.dtype == dtype and tensor.shape == (2, 3)
    array[...] = 1
    assert np.asarray(tf.cast(tensor, tf.float32)).all(), "it was copied"


def test_what_cannot_be_shared_is_copied() -> None:
    kind = kind_of([tf.zeros(1)])
    assert kind is not None
    frozen = aligned((4,), np.float32)
    frozen.flags.writeable = False
    for array in (aligned((5,), np.float32)[1:], aligned((4, 4), np.int32).T, frozen, np.zeros((0, 3))):
        tensor = kind.from_numpy(array)
        assert tensor.dtype == array.dtype.name and tensor.numpy().tolist() == array.tolist()
    assert kind.from_numpy(np.array([["a", "\u00e9"]], object)).numpy().tolist() == [[b"a", b"\xc3\xa9"]]
    for array in (np.zeros(2, "M8[s]"), np.zeros(2, [("a", "i4")]), np.zeros(2, np.longdouble)):
        assert kind.from_numpy(array) is array


def test_tensors_in_tensors_out(model: Model) -> None:
    inputs = {
        "a": tf.range(40000.0),
        "b": tf.constant([[1, 2]], tf.int64),
        "c": tf.constant(2.5, tf.bfloat16),
    }
    for outputs in (model.infer(inputs), model(**inputs), model.submit(inputs).result()):
        for name, tensor in inputs.items():
            assert isinstance(outputs[name], tf.Tensor) and outputs[name].dtype == tensor.dtype
            assert outputs[name].shape == tensor.shape and bool(tf.reduce_all(outputs[name] == tensor))
    assert isinstance(model(tf.zeros(3)), tf.Tensor)
    assert isinstance(model.infer({"a": tf.zeros(3), "b": np.zeros(3)})["a"], np.ndarray), "of two kinds"
    texts = model.infer({"t": tf.constant(["a", "\u00e9"])})["t"]
    assert texts.dtype == tf.string and texts.numpy().tolist() == [b"a", b"\xc3\xa9"]


def test_an_output_holds_its_memory() -> None:
    with opexec.load(source("echo")) as model:
        output = model.infer({"x": tf.range(40000.0)})["x"]
        place = where(output)
        assert place % 64 == 0
        shaped = tf.reshape(output, (200, 200))
        del output
        others = [model.infer({"x": tf.zeros(40000)})["x"] for _ in range(5)]
        assert place not in map(where, others)
        assert shaped.numpy().ravel().tolist() == list(range(40000))
        del shaped, others
        gc.collect()
        for _ in range(3):
            model.infer({"x": np.zeros(1)})
        assert model.stats().blocks_held <= 1
    assert model.stats().calls == 9


def test_a_spec_takes_tensorflows_dtypes() -> None:
    with opexec.load(source("double"), inputs=[TensorSpec("x", "float32", ("n",))]) as model:
        assert model(tf.ones(3))["y"].numpy().tolist() == [2, 2, 2]
        with pytest.raises(SpecError, match="expected float32"):
            model(tf.ones(3, tf.float64))


def test_what_has_no_values_is_refused() -> None:
    with pytest.raises(SpecError, match="SparseTensor, which is no array"):
        to_numpy(tf.sparse.from_dense([[1, 0]]), None, "x")

    @tf.function
    def traced(x: Any) -> Any:
        with pytest.raises(SpecError):
            to_numpy(x, None, "x")
        return x

    traced(tf.zeros(2))


def test_a_snapshot_is_a_tensor_of_its_own() -> None:
    variable = tf.Variable([1.0, 2.0])
    kept = snapshot(variable, "x")
    variable.assign([3.0, 4.0])
    assert kept.numpy().tolist() == [1, 2] and kind_of([kept]) is kind_of([tf.zeros(1)])
