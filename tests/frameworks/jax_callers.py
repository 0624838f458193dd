"""jax's arrays in, jax's arrays out, over shared memory. Run by test_jax_callers.py, where jax is installed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import opexec
from opexec import Model, SpecError
from opexec.calling.arrays import kind_of, snapshot, to_numpy
from tests.loaded import source

NARROW = "bool uint8 int8 uint16 int16 uint32 int32 float16 float32 complex64 bfloat16 float8_e4m3fn float8_e5m2".split()
WIDE = "uint64 int64 float64 complex128".split()


@pytest.fixture
def wide() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def address(array: Any) -> int:
    return np.asarray(array).__array_interface__["data"][0]  # type: ignore[no-any-return]


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    raw = np.zeros(int(np.prod(shape)) * np.dtype(dtype).itemsize + 64, np.uint8)
    begin = -address(raw) % 64
    return raw[begin : raw.size - 64 + begin].view(dtype).reshape(shape)


@pytest.fixture(params=["process", "none"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with opexec.load(source("echo"), isolation=request.param) as model:
        yield model


@pytest.mark.parametrize("dtype", [*NARROW, *WIDE])
def test_arrays_share_their_memory_both_ways(dtype: str, wide: None) -> None:
    given = jnp.arange(6).reshape(2, 3).astype(dtype)
    taken = to_numpy(given, None, "x")
    assert taken.dtype == given.dtype and address(taken) == address(given)
    kind = kind_of([given])
    assert kind is not None and kind.name == "jax"
    array = aligned((2, 3), getattr(ml_dtypes, dtype, dtype))
    made = kind.from_numpy(array)
    assert isinstance(made, jax.Array) and made.dtype == array.dtype and address(made) == address(array)


@pytest.mark.parametrize("dtype", WIDE)
def test_64_bits_stay_numpys_where_jax_would_make_32_of_them(dtype: str) -> None:
    kind = kind_of([jnp.zeros(1)])
    array = np.ones(3, dtype)
    assert kind is not None and kind.from_numpy(array) is array
    with opexec.load(source("double")) as model:
        assert isinstance(model(jnp.ones(3))["y"], jax.Array)
    with opexec.load(source("total")) as model:  # which gives float64
        assert isinstance(model(jnp.ones(3))["sum"], np.ndarray)


def test_what_jax_lacks_stays_numpys() -> None:
    kind = kind_of([jnp.zeros(1)])
    assert kind is not None
    for array in (
        np.zeros(2, "M8[s]"),
        np.zeros(2, [("a", "i4")]),
        np.zeros(2, np.longdouble),
        np.array(["a"], object),
        np.array(["a"]),
    ):
        assert kind.from_numpy(array) is array


def test_arrays_in_arrays_out(model: Model) -> None:
    inputs = {"a": jnp.arange(40000.0), "b": jnp.ones((0, 3), jnp.int32), "c": jnp.asarray(2.5, jnp.bfloat16)}
    for outputs in (model.infer(inputs), model(**inputs), model.submit(inputs).result()):
        for name, array in inputs.items():
            assert isinstance(outputs[name], jax.Array) and outputs[name].dtype == array.dtype
            assert outputs[name].shape == array.shape and bool((outputs[name] == array).all())
    assert isinstance(model(jnp.zeros(3)), jax.Array)
    assert isinstance(model.infer({"a": jnp.zeros(3), "b": np.zeros(3)})["a"], np.ndarray), "of two kinds"


def test_an_output_holds_its_memory() -> None:
    with opexec.load(source("echo")) as model:
        output = model.infer({"x": jnp.arange(40000.0)})["x"]
        place = address(output)
        assert place % 64 == 0
        others = [model.infer({"x": jnp.zeros(40000)})["x"] for _ in range(5)]
        assert place not in map(address, others)
        assert (output == jnp.arange(40000.0)).all()
        view = np.asarray(output)[10:20]
        assert not view.flags.writeable
        del output, others
        assert view.tolist() == list(range(10, 20))
        again = [model.infer({"x": jnp.zeros(40000)})["x"] for _ in range(5)]
        assert place not in map(address, again)
        del view, again
        gc.collect()
        for _ in range(3):
            model.infer({"x": np.zeros(1)})
        assert model.stats().blocks_held <= 1


def test_an_output_may_be_given_away() -> None:
    """jax may write the result of a function into an argument that is donated to it: into memory that is the output's own."""
    with opexec.load(source("echo")) as model:
        held = model.infer({"x": jnp.ones(40000)})["x"]
        given = model.infer({"x": jnp.ones(40000)})["x"]
        result = jax.jit(lambda x: x + 1, donate_argnums=0)(given)
        assert (result == 2).all() and (held == 1).all()
        assert (model.infer({"x": jnp.full(40000, 3.0)})["x"] == 3).all() and (result == 2).all()


def test_what_has_no_values_yet_is_refused() -> None:
    def traced(x: Any) -> Any:
        with pytest.raises(SpecError, match="is being traced by jax.*pure_callback"):
            to_numpy(x, None, "x")
        return x

    jax.jit(traced)(1.0)
    with pytest.raises(SpecError, match="key_data"):
        to_numpy(jax.random.key(0), None, "x")


def test_called_from_within_jit() -> None:
    with opexec.load(source("double")) as model:

        @jax.jit
        def twice(x: Any) -> Any:
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return jax.pure_callback(lambda x: model(np.asarray(x))["y"], shape, x) + 1

        assert twice(jnp.arange(3.0)).tolist() == [1, 3, 5]


def test_a_snapshot_is_an_array_of_its_own() -> None:
    given = jnp.arange(100.0)
    kept = snapshot(given, "x")
    assert isinstance(kept, jax.Array) and address(kept) != address(given) and (kept == given).all()
