"""The four ways to call a model give what the model returned, in a worker as in process: structure, types, dtypes, shapes and bytes."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import opexec
from opexec import Model, SpecError, TensorSpec
from opexec.ipc import wire
from tests.loaded import PYTHONS, interpreter, source
from tests.models import RESULTS

X = np.arange(6, dtype=np.float64).reshape(2, 3)


def native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="))


def assert_same(a: Any, b: Any) -> None:
    """Equal in everything that a caller can see, but for the memory's layout and byte order."""
    if isinstance(a, tuple) and hasattr(a, "_fields"):
        assert (type(a).__name__, a._fields) == (type(b).__name__, b._fields)
    else:
        assert type(a) is type(b), (a, b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, np.ndarray) and a.dtype.kind in "OT":
        assert (b.dtype, a.shape, a.tolist()) == (object, b.shape, b.tolist())
        assert [type(one) for one in a.astype(object).flat] == [type(one) for one in b.flat]
    elif isinstance(a, np.ndarray):
        a, b = native(a), native(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.dtype.names is None:
            assert a.tobytes() == b.tobytes()
        else:  # field by field: what lies between them is nobody's
            for name in a.dtype.names:
                assert_same(a[name], b[name])
    else:
        assert a == b


def by_infer(model: Model, inputs: dict[str, Any]) -> dict[str, Any]:
    return model.infer(inputs)


def by_submit(model: Model, inputs: dict[str, Any]) -> dict[str, Any]:
    return model.submit(inputs).result()


def by_infer_async(model: Model, inputs: dict[str, Any]) -> dict[str, Any]:
    return asyncio.run(model.infer_async(inputs))


NAMED_WAYS = [by_infer, by_submit, by_infer_async]


@pytest.fixture(scope="module", params=PYTHONS)
def returning(request: pytest.FixtureRequest) -> Iterator[tuple[Model, Model]]:
    """A model in a worker, and the same one in process."""
    where = source("returning")
    with (
        opexec.load(where, env=interpreter(request.param)) as there,
        opexec.load(where, isolation="none") as here,
    ):
        yield there, here


@pytest.mark.parametrize("which", range(len(RESULTS)))
def test_whatever_a_model_returns_comes_back_as_it_was(returning: tuple[Model, Model], which: int) -> None:
    there, here = returning
    number = np.array(which)
    for _ in range(2):  # the second call repeats nothing of the first
        assert_same(here(X, number), there(X, number))
        assert_same(here(x=X, which=number), there(x=X, which=number))
        assert_same(here(X, which=number), there(X, which=number))
    for way in NAMED_WAYS:
        expected = here.infer({"x": X, "which": number})
        assert_same(expected, way(there, {"x": X, "which": number}))
        assert_same(expected, way(here, {"x": X, "which": number}))


def test_results_without_names_get_some(returning: tuple[Model, Model]) -> None:
    def names(which: int) -> list[list[str]]:
        return [list(model.infer({"x": X, "which": np.array(which)})) for model in returning]

    assert names(0) == [["output"]] * 2
    assert names(1) == [["a", "b"]] * 2
    assert names(3) == [["output_0", "output_1", "output_2"]] * 2
    assert names(4) == [["first", "second/deep/0"]] * 2
    assert names(5) == [["outer/inner/0", "outer/inner/1/0", "outer/inner/1/1/k", "n"]] * 2
    assert names(7) == [[]] * 2


@pytest.mark.parametrize("way", NAMED_WAYS)
def test_a_subset_of_the_outputs_in_the_order_asked_for(
    returning: tuple[Model, Model], way: Callable[..., Any]
) -> None:
    inputs = {"x": X, "which": np.array(3)}
    for model in returning:
        wanted = ["output_2", "output_0"]
        if way is by_infer:
            results = model.infer(inputs, outputs=wanted)
        elif way is by_submit:
            results = model.submit(inputs, outputs=wanted).result()
        else:
            results = asyncio.run(model.infer_async(inputs, outputs=wanted))
        assert list(results) == wanted
        np.testing.assert_array_equal(results["output_2"], X * 3)
        with pytest.raises(
            SpecError, match="'output_9' was asked for; the model gave 'output_0', 'output_1', 'output_2'"
        ):
            model.infer(inputs, outputs=["output_1", "output_9"])
        assert model.infer(inputs, outputs=[]) == {}


# ---- inputs


@pytest.fixture(scope="module", params=PYTHONS)
def echoes(request: pytest.FixtureRequest) -> Iterator[tuple[Model, Model]]:
    where = source("echo")
    with (
        opexec.load(where, env=interpreter(request.param)) as there,
        opexec.load(where, isolation="none") as here,
    ):
        yield there, here


NUMBERS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
OTHERS = [
    "longdouble",
    "clongdouble",
    "S1",
    "S5",
    "U1",
    "U3",
    "V7",
    "M8[D]",
    "M8[ns]",
    "M8[25us]",
    "m8[s]",
    "m8[h]",
]
STRUCTURES = [
    [("a", "i4"), ("b", ">f8")],
    [("box", "f4", (2, 2)), ("inner", [("flag", "?"), ("text", "S3")]), ("when", "M8[s]")],
    {"names": ["late", "early"], "formats": ["u2", "u1"], "offsets": [9, 3], "itemsize": 16},
]
DTYPES = [np.dtype(one) for one in [*NUMBERS, *OTHERS, *STRUCTURES]]
EXTENSIONS = [np.dtype(getattr(ml_dtypes, name)) for name in wire.EXTENSIONS if hasattr(ml_dtypes, name)]

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": lambda array: array,
    "Fortran": np.asfortranarray,
    "transposed": lambda array: array.T,
    "reversed": lambda array: array[..., ::-1] if array.ndim else array,
    "every other": lambda array: array[..., ::2] if array.ndim else array,
    "a column": lambda array: array[..., -1:] if array.ndim else array,
    "the same again": lambda array: np.broadcast_to(array, (2, *array.shape)),
    "a view": lambda array: array[...],
    "read-only": lambda array: (
        np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) if array.size else array
    ),
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
}


def filled(dtype: np.dtype[Any], shape: tuple[int, ...], start: int = 1) -> np.ndarray:
    """An array of different bytes that any dtype can hold."""
    array = np.zeros(shape, dtype)
    size = array.size
    if dtype.kind in "?b":
        array.flat[:] = np.arange(start, start + size) % 3 == 0
    elif dtype.kind == "U":
        array.flat[:] = [chr(0x100 + index % 5000) * 2 for index in range(start, start + size)]
    elif dtype.names is not None and size:
        for field in dtype.names:
            base = dtype[field].base
            array[field] = filled(base, array[field].shape, start + 1).astype(base)
    elif (
        dtype.kind in "fcV" and dtype.itemsize > 8
    ):  # padding bytes of a long double would not survive a conversion
        array.flat[:] = (
            np.arange(start, start + size).astype("S7")
            if dtype.kind == "V"
            else np.arange(start, start + size)
        )
    elif size:
        array.reshape(-1).view(np.uint8)[:] = np.arange(start, start + array.nbytes) % 120
    return array


SHAPES = [(), (1,), (0,), (3,), (2, 3), (3, 0, 2), (2, 1, 4), (2, 1, 2, 1, 2), (1,) * 32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_in_every_shape_and_layout(echoes: tuple[Model, Model], dtype: np.dtype[Any]) -> None:
    there, here = echoes
    for shape in SHAPES:
        for layout in LAYOUTS.values():
            array = filled(dtype, shape)
            if array.ndim == 32 and layout is LAYOUTS["the same again"]:
                continue
            array = layout(array)
            assert_same(here.infer({"x": array}), there.infer({"x": array}))
            assert_same(array, there(array))


def test_every_dtype_that_ml_dtypes_adds() -> None:
    assert len(EXTENSIONS) > 10
    with opexec.load(source("echo")) as model:
        for dtype, shape, name in itertools.product(EXTENSIONS, SHAPES[:-1], LAYOUTS):
            if name != "big-endian":  # numpy cannot say that of them
                array = filled(np.dtype(np.uint8), (*shape, dtype.itemsize)).view(dtype).reshape(shape)
                array = LAYOUTS[name](array)
                result = model(x=array)["x"]
                assert (result.dtype, result.shape, result.tobytes()) == (dtype, array.shape, array.tobytes())


@pytest.mark.slow
def test_a_dtype_that_the_models_numpy_lacks_is_named_with_its_cure() -> None:
    with opexec.load(source("echo"), env=interpreter("3.7")) as model:
        with pytest.raises(
            opexec.ModelError, match="input 'x' is bfloat16.*add ml_dtypes to the environment"
        ):
            model.infer({"x": np.zeros(3, ml_dtypes.bfloat16)})
        assert_same({"x": X}, model.infer({"x": X}))


TEXTS = st.text(st.characters(), max_size=5)  # lone surrogates and NULs among them


@settings(max_examples=60)
@given(
    elements=st.lists(TEXTS, max_size=6) | st.lists(st.binary(max_size=5), max_size=6),
    rank=st.integers(0, 3),
    beside=st.booleans(),
)
def test_texts_and_bytes_of_any_length_and_rank(
    echoes: tuple[Model, Model], elements: list[Any], rank: int, beside: bool
) -> None:
    there, here = echoes
    if rank == 0:
        array = np.empty((), object)
        array[()] = elements[0] if elements else ""
    else:
        array = np.empty(len(elements), object)
        array[:] = elements
        array = array.reshape((1,) * (rank - 1) + (-1,)) if rank < 3 else array.reshape((-1, 1, 1))
    inputs = {"x": array, "y": X} if beside else {"x": array}
    for way in (by_infer, by_submit):
        assert_same(here.infer(inputs), way(there, inputs))
    assert_same(here(array), there(array))


def test_texts_that_grow_and_shrink_from_call_to_call(echoes: tuple[Model, Model]) -> None:
    there, _ = echoes
    for length in [1, 10, 100_000, 3, 2_000_000, 0, 7]:
        array = np.array(["x" * length, "\U0001f600" * length], object)
        assert there(array).tolist() == array.tolist()


def test_numpys_own_strings(echoes: tuple[Model, Model]) -> None:
    there, _ = echoes
    array = np.array([["one", "two\0"], ["", "\u4e2d"]], np.dtypes.StringDType())
    assert there(array).tolist() == array.tolist()


numbers = st.sampled_from([np.dtype(one) for one in NUMBERS])
tensors = st.builds(
    filled,
    numbers,
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    st.integers(1, 100),
)


@settings(max_examples=80)
@given(
    arrays=st.lists(st.tuples(tensors, st.sampled_from(sorted(LAYOUTS))), max_size=12),
    positional=st.integers(0, 12),
)
def test_any_number_of_inputs_by_position_and_by_keyword(
    echoes: tuple[Model, Model], arrays: list[tuple[np.ndarray, str]], positional: int
) -> None:
    there, here = echoes
    given_arrays = [LAYOUTS[layout](array) for array, layout in arrays]
    keywords = {f"k{index}": array for index, array in enumerate(given_arrays[positional:])}
    assert_same(here(*given_arrays[:positional]), there(*given_arrays[:positional]))
    assert_same(here(**keywords), there(**keywords))
    assert_same(here.infer(keywords), there.infer(keywords))


class Mapping(dict):  # a mapping need not be a plain dict
    pass


class Arraylike:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


class Dlpack:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_whatever_is_an_array_is_taken_for_one(echoes: tuple[Model, Model]) -> None:
    for model in echoes:
        for value in (Arraylike(X), Dlpack(X), memoryview(X), X.view(np.matrix), X[:, :]):
            np.testing.assert_array_equal(model.infer(Mapping(x=value))["x"], X)
        for scalar in (
            np.float32(1.5),
            np.int8(-3),
            np.bool_(True),
            np.datetime64("2020-01-01", "s"),
            np.str_("a"),
        ):
            result = model.infer({"x": scalar})["x"]
            assert result.shape == () and result[()] == scalar


def test_pythons_values_become_the_dtype_of_the_spec() -> None:
    inputs = [
        TensorSpec("f", "float32", ["n"]),
        TensorSpec("i", "uint8", []),
        TensorSpec("t", "string", [None]),
        TensorSpec("d", "datetime64[s]", []),
        TensorSpec("b", "bfloat16", None),
    ]
    given_values = {
        "f": [1, 2.5],
        "i": 7,
        "t": ["a", "\u00fc"],
        "d": datetime.datetime(2020, 1, 2, 3),
        "b": [[1.5], [2]],
    }
    with (
        opexec.load(source("echo"), inputs=inputs) as there,
        opexec.load(source("echo"), inputs=inputs, isolation="none") as here,
    ):
        assert there.inputs == here.inputs == tuple(inputs) and there.outputs is None
        for model in (there, here):
            result = model.infer(given_values)
            assert [str(array.dtype) for array in result.values()] == [
                "float32",
                "uint8",
                "object",
                "datetime64[s]",
                "bfloat16",
            ]
        assert_same(here.infer(given_values), there.infer(given_values))
        assert_same(here(*given_values.values()), there(*given_values.values()))
        assert_same(
            here([1, 2.5], b=1, d=given_values["d"], t=["a"], i=7),
            there([1, 2.5], b=1, d=given_values["d"], t=["a"], i=7),
        )


def test_positional_arguments_follow_the_order_of_the_spec() -> None:
    inputs = [TensorSpec("which", "int64", []), TensorSpec("x", "float64", [None, None])]
    for isolation in ("process", "none"):
        with opexec.load(source("returning"), inputs=inputs, isolation=isolation) as model:
            np.testing.assert_array_equal(model(0, X), X + 1)
            np.testing.assert_array_equal(model(0, x=X), X + 1)
            np.testing.assert_array_equal(model(x=X, which=0), X + 1)


def test_an_input_may_have_any_name() -> None:
    names = ["self", "inputs", "outputs", "timeout", "args", "name", "x y", "\u00fc", ""]
    for isolation in ("process", "none"):
        with opexec.load(source("echo"), isolation=isolation) as model:
            inputs = {name: np.array(index) for index, name in enumerate(names)}
            assert_same(inputs, model.infer(inputs))
            assert_same(inputs, model(**inputs))


def test_a_model_that_reshapes_its_input_in_place_sees_it_as_given_next_time() -> None:
    with opexec.load(source("reshaping")) as model:
        x = model.empty("x", (2, 3), np.float64)
        for _ in range(3):
            x[...] = X
            np.testing.assert_array_equal(model(x=x), X)
            np.testing.assert_array_equal(model(x=X), X)


@pytest.mark.parametrize("wait", ["adaptive", "block", "spin"])
def test_however_a_caller_waits_the_answers_are_right(wait: str) -> None:
    with opexec.load(source("double"), wait=wait) as model:
        for number in range(300):
            assert model.infer({"x": np.array(number)})["y"] == 2 * number
        assert model.submit({"x": np.array(4)}).result()["y"] == 8
        assert asyncio.run(model.infer_async({"x": np.array(5)}))["y"] == 10


def test_more_signatures_than_plans_are_kept(echoes: tuple[Model, Model]) -> None:
    there, _ = echoes
    for _ in range(2):
        for size in range(300):
            array = np.arange(size, dtype=np.int32)
            np.testing.assert_array_equal(there(array), array)


def test_a_model_says_what_runs_it() -> None:
    with opexec.load(source("double"), name="twice") as model:
        (worker,) = model.workers
        assert (model.name, model.platform, worker.framework, worker.state) == (
            "twice",
            "python",
            "python",
            "ready",
        )
        assert worker.numpy == np.__version__ and model.inputs is None and model.outputs is None
        x = np.ones((4, 4))
        for _ in range(3):
            model.infer({"x": x})
        stats = model.stats()
        assert (stats.calls, stats.bytes_copied_in, stats.bytes_copied_out) == (3, 3 * x.nbytes, 3 * x.nbytes)
    assert model.workers[0].state == "stopped"
    with opexec.load(source("double")) as model:
        assert model.name == "models:double"


def test_a_closed_model_says_so() -> None:
    for isolation in ("process", "none"):
        model = opexec.load(source("double"), isolation=isolation)
        model.close()
        model.close()
        for call in (
            lambda: model.infer({"x": X}),
            lambda: model(x=X),
            lambda: model.submit({"x": X}),
            lambda: asyncio.run(model.infer_async({"x": X})),
        ):
            with pytest.raises(opexec.ModelClosed, match="closed; load it again"):
                call()
        with pytest.raises(opexec.ModelClosed):
            model.empty("x", (2,), "f4")
        assert [worker.state for worker in model.workers] == ["stopped"]
        assert model.stats().calls == 0
