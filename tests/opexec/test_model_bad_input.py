"""Whatever is wrong with a call is said in one clear error that names what was expected and what came; the next call works."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import opexec
from opexec import Model, ModelError, SpecError, TensorSpec
from tests.loaded import PYTHONS, interpreter, source

INPUTS = [
    TensorSpec("image", "float32", ["N", 3, None]),
    TensorSpec("mask", "bool", ["N"]),
    TensorSpec("label", "string", []),
    TensorSpec("blob", "bytes", None),
]

GOOD: dict[str, Any] = {
    "image": np.ones((2, 3, 5), np.float32),
    "mask": np.array([True, False]),
    "label": np.array("cat", object),
    "blob": np.array([b"\0\1"], object),
}

MISSING = object()

# What is changed in GOOD, and the words that must be in the error.
BAD_CALLS: dict[str, tuple[dict[Any, Any], list[str]]] = {
    "missing": ({"mask": MISSING}, ["input 'mask' is missing", "expected bool[N]"]),
    "several missing": (
        {"mask": MISSING, "image": MISSING},
        ["inputs 'image', 'mask'", "float32[N, 3, ?]", "bool[N]"],
    ),
    "none at all": (dict.fromkeys(GOOD, MISSING), ["input 'image' is missing", "input 'blob' is missing"]),
    "extra": (
        {"size": np.zeros(1)},
        ["input 'size' is unknown", "the model's inputs are 'image', 'mask', 'label', 'blob'"],
    ),
    "misspelt": (
        {"image": MISSING, "Image": GOOD["image"]},
        ["input 'Image' is unknown; did you mean 'image'?"],
    ),
    "dtype": (
        {"image": GOOD["image"].astype(np.float64)},
        ["expected float32[N, 3, ?], got float64[2, 3, 5]", "array.astype('float32') converts"],
    ),
    "dtype, quietly": ({"mask": np.array([1, 0])}, ["input 'mask': expected bool[N], got int64[2]"]),
    "rank": ({"image": GOOD["image"][0]}, ["got float32[3, 5]", "the rank must be 3, not 2"]),
    "size": ({"image": np.ones((2, 4, 5), np.float32)}, ["got float32[2, 4, 5]", "axis 1 must be 3, not 4"]),
    "symbol": ({"mask": np.array([True])}, ["axis 0 is 1, but N is 2 by axis 0 of input 'image'"]),
    "several things": (
        {"image": np.ones((2, 4, 5)), "mask": MISSING},
        ["the dtype must be float32", "axis 1 must be 3, not 4", "input 'mask' is missing"],
    ),
    "no array": ({"image": object()}, ["input 'image' is of type object, which is no array"]),
    "a function": (
        {"image": len},
        ["input 'image' is of type builtin_function_or_method, which is no array"],
    ),
    "a set": ({"image": {1, 2}}, ["input 'image' is of type set, which is no array"]),
    "a dict": ({"image": {"a": 1}}, ["input 'image' is of type dict, which is no array"]),
    "None": ({"image": None}, ["input 'image' is of type NoneType, which is no array"]),
    "a class": ({"image": np.ndarray}, ["input 'image' is of type type, which is no array"]),
    "a ragged list": ({"image": [[1.0], [1.0, 2.0]]}, ["input 'image' is a ragged list"]),
    "a list of texts": ({"image": [["a"]]}, ["input 'image': element [0][0] is 'a' of type str", "float32"]),
    "a number too large": (
        {"image": [[[1e300]] * 3]},
        ["element [0][0][0] is 1e+300, which float32 cannot hold"],
    ),
    "an int for a bool": ({"mask": [1, 0]}, ["input 'mask': element [0] is 1 of type int", "bool"]),
    "a masked array": (
        {"mask": np.ma.array([True, False], mask=[0, 1])},
        ["input 'mask'", "fill it with .filled(value) first"],
    ),
    "objects": (
        {"image": np.array([[[1, None, "a"]] * 3], object)},
        ["input 'image': expected float32[N, 3, ?], got object[1, 3, 3]"],
    ),
    "texts for numbers": (
        {"mask": np.array(["yes", "no"], object)},
        ["input 'mask': expected bool[N], got string[2]"],
    ),
    "bytes for a text": (
        {"label": np.array(b"cat", object)},
        ["input 'label': expected string[], got bytes[]"],
    ),
    "a text for bytes": (
        {"blob": np.array(["x"], object)},
        ["input 'blob': expected bytes[...], got string[1]"],
    ),
    "Python bytes for a text": ({"label": b"cat"}, ["input 'label' is b'cat' of type bytes", "string"]),
    "a mixture of texts and bytes": (
        {"label": np.array(["a", b"b"], object)},
        ["input 'label'", "rank must be 0, not 1"],
    ),
    "texts and None": (
        {"blob": np.array([b"a", None], object)},
        ["input 'blob'", "element 1 is of type NoneType, expected bytes"],
    ),
    "numbers for bytes": ({"blob": np.zeros(3)}, ["input 'blob': expected bytes[...], got float64[3]"]),
    "a dtype nobody knows": (
        {"mask": np.zeros(2, [("a", "O")])},
        ["input 'mask': expected bool[N], got [('a', 'O')][2]"],
    ),
    "another kind of float": ({"image": GOOD["image"].astype(ml_dtypes.bfloat16)}, ["got bfloat16[2, 3, 5]"]),
}


@pytest.fixture(scope="module", params=["process", "none"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with opexec.load(source("echo"), inputs=INPUTS, isolation=request.param) as model:
        yield model


def assert_works(model: Model) -> None:
    result = model.infer(GOOD)
    assert list(result) == list(GOOD)
    for name, array in GOOD.items():
        np.testing.assert_array_equal(result[name], array)


def assert_clear(error: BaseException, words: list[str]) -> None:
    assert not isinstance(error, ModelError) and isinstance(error, SpecError)
    message = str(error)
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


@pytest.mark.parametrize("bad", BAD_CALLS)
def test_what_does_not_fit_the_spec(model: Model, bad: str) -> None:
    changes, words = BAD_CALLS[bad]
    inputs = {name: value for name, value in {**GOOD, **changes}.items() if value is not MISSING}
    before = model.stats()
    calls = [
        lambda: model.infer(inputs),
        lambda: model(**inputs),
        lambda: model.submit(inputs),
        lambda: asyncio.run(model.infer_async(inputs)),
    ]
    for call in calls:
        with pytest.raises(SpecError) as caught:
            call()
        assert_clear(caught.value, words)
        assert_works(model)
    after = model.stats()
    assert after.shared_memory == before.shared_memory
    assert after.calls - before.calls == len(calls), "nothing bad was sent"


def test_what_does_not_fit_by_position(model: Model) -> None:
    for args, kwargs, words in [
        ((*GOOD.values(), 5), {}, ["takes 4 inputs, got 5 positional"]),
        ((GOOD["image"],), GOOD, ["input 'image' is given twice: by position and by name"]),
        ((GOOD["image"],), {}, ["input 'mask' is missing"]),
        ((GOOD["mask"], GOOD["image"]), {}, ["input 'image': expected float32[N, 3, ?], got bool[2]"]),
        ((), {}, ["input 'image' is missing"]),
    ]:
        with pytest.raises(SpecError) as caught:
            model(*args, **kwargs)
        assert_clear(caught.value, words)
    assert_works(model)


@pytest.mark.parametrize(
    "inputs", [None, 5, "image", [GOOD["image"]], GOOD["image"], {1: GOOD["image"]}, {None: np.zeros(1)}]
)
def test_inputs_that_are_no_mapping_of_names(model: Model, inputs: Any) -> None:
    for call in (
        lambda: model.infer(inputs),
        lambda: model.submit(inputs),
        lambda: asyncio.run(model.infer_async(inputs)),
    ):
        with pytest.raises(SpecError, match="inputs must be a mapping of names to arrays|is unknown"):
            call()
        assert_works(model)


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_without_a_spec_what_cannot_travel_is_refused(isolation: str) -> None:
    with opexec.load(source("echo"), isolation=isolation) as model:
        for value, words in [
            (object(), "'x' is of type object, which is no array"),
            (
                [1, 2],
                "'x' is of type list, and no spec gives its dtype; pass a numpy array, or load the model with inputs=",
            ),
            (1.5, "'x' is of type float, and no spec gives its dtype"),
            ("text", "'x' is of type str, and no spec gives its dtype"),
            (None, "'x' is of type NoneType, which is no array"),
        ]:
            for call in (
                lambda: model.infer({"x": value}),
                lambda: model(x=value),
                lambda: model.submit({"x": value}),
            ):
                with pytest.raises(SpecError, match=words):
                    call()
            with pytest.raises(SpecError, match="input '0' is of type"):
                model(value)
        with pytest.raises(SpecError, match="inputs must be a mapping of names to arrays"):
            model.infer({1: np.zeros(1)})
        if isolation == "process":  # in process, nothing has to travel
            for array, words in [
                (
                    np.array([1, "a"], object),
                    "input 'x' is an array of objects: element 0 is of type int, expected str",
                ),
                (
                    np.array(["a", b"b"], object),
                    "input 'x' is an array of objects: element 1 is of type bytes, expected str",
                ),
                (np.zeros(2, [("a", "O")]), "'x'.*Python objects"),
                (np.zeros((1,) * 40), "'x' has 40 dimensions; expected at most 32"),
            ]:
                with pytest.raises(SpecError, match=words):
                    model.infer({"y": np.zeros(3), "x": array})
        assert model.infer({"x": np.ones(2)})["x"].tolist() == [1, 1]


def test_nothing_is_checked_where_the_user_says_so() -> None:
    inputs = [TensorSpec("x", "float32", [2])]
    outputs = [TensorSpec("y", "float32", [2])]
    for isolation in ("process", "none"):
        with opexec.load(
            source("double"), inputs=inputs, outputs=outputs, isolation=isolation, check=False
        ) as model:
            assert model.infer({"x": np.ones((3, 3))})["y"].shape == (3, 3)
            assert model([1, 2])["y"].dtype == np.float32  # the spec still gives Python values their dtype


# ---- outputs


OUTPUTS = [TensorSpec("y", "float32", ["N", 2]), TensorSpec("n", "int64", [])]

BAD_OUTPUTS = {
    "missing": ["output 'n' is missing; expected int64[]"],
    "extra": ["output 'more' is unknown; the model's outputs are 'y', 'n'"],
    "dtype": ["output 'y': expected float32[N, 2], got float64[3, 2]"],
    "rank": ["output 'y': expected float32[N, 2], got float32[2]", "the rank must be 2, not 1"],
    "size": ["axis 1 must be 2, not 3"],
    "symbol": ["axis 0 is 4, but N is 3 by the inputs"],
    "unnamed": ["output 'output' is unknown", "output 'y' is missing"],
}


@pytest.mark.parametrize("where", ["caller's", "none", pytest.param("3.7", marks=pytest.mark.slow)])
def test_outputs_that_break_the_spec(where: str) -> None:
    inputs = [TensorSpec("x", "float64", ["N"]), TensorSpec("how", None or "string", [])]
    options = {"isolation": "none"} if where == "none" else {"env": interpreter(where)}
    with opexec.load(source("misfit"), inputs=inputs, outputs=OUTPUTS, **options) as model:
        for how, words in BAD_OUTPUTS.items():
            bad = {"x": np.zeros(3), "how": how}
            for call in (
                lambda: model.infer(bad),
                lambda: model(**bad),
                lambda: model.submit(bad).result(),
                lambda: asyncio.run(model.infer_async(bad)),
            ):
                for _ in range(2):  # what was refused once is not taken for good the next time
                    with pytest.raises(SpecError) as caught:
                        call()
                    assert_clear(caught.value, words)
                good = model.infer({"x": np.zeros(5), "how": ""})
                assert good["y"].shape == (5, 2) and good["n"] == 5
        if where != "none":
            del good, caught
            gc.collect()  # errors refer to what was seen when they were raised
            for _ in range(3):
                model.infer({"x": np.zeros(1), "how": ""})
            assert model.stats().blocks_held <= 1


def test_texts_that_break_the_spec_of_outputs() -> None:
    inputs = [TensorSpec("x", "string", None)]
    for isolation in ("process", "none"):
        with opexec.load(
            source("echo"), inputs=inputs, outputs=[TensorSpec("x", "bytes", None)], isolation=isolation
        ) as model:
            for _ in range(2):
                with pytest.raises(SpecError, match=r"output 'x': expected bytes\[...\], got string\[1\]"):
                    model.infer({"x": ["a"]})


# ---- models that fail


FAILURES = {
    "raise": ("models.OutOfOrder", "a t\u00e9xt"),
    "exit": ("SystemExit", "bye"),
    "recurse": ("RecursionError", "maximum recursion depth"),
    "memory": ("MemoryError", "Unable to allocate"),
    "unprintable": ("models._Unprintable", ""),
    "surrogate": ("ValueError", "lone"),
    "huge": ("ValueError", "xxxx"),
    "object": ("UnsupportedOutput", "the model's result is an object; a model returns arrays, numbers"),
    "nested object": ("UnsupportedOutput", "output 'a/1' is an object"),
    "set": ("UnsupportedOutput", "the model's result is a set"),
    "masked": ("UnsupportedOutput", "fill it with"),
    "big int": ("UnsupportedOutput", "an int beyond 64 bits"),
    "same names": ("UnsupportedOutput", "two of the model's outputs are named 'a/b'"),
    "too deep": ("UnsupportedOutput", "nested more than 32 levels deep"),
}


@pytest.mark.parametrize("python", [*PYTHONS, "none"])
def test_a_model_that_fails(python: str) -> None:
    options = {"isolation": "none"} if python == "none" else {"env": interpreter(python)}
    failures = dict(FAILURES)
    if python != "none":  # in process these have nowhere to go wrong, or mean what they say
        failures["interrupt"] = ("KeyboardInterrupt", "")
        failures["objects"] = ("TypeError", "element 0 is of type int, expected str")
    with opexec.load(source("failing"), **options) as model:
        for how, (kind, words) in failures.items():
            bad = {"how": np.array(how)}
            for call in (
                lambda: model.infer(bad),
                lambda: model(**bad),
                lambda: model.submit(bad).result(),
                lambda: asyncio.run(model.infer_async(bad)),
            ):
                with pytest.raises(ModelError) as caught:
                    call()
                error = caught.value
                assert error.type.endswith(kind) and words in error.message, (how, error.type, error.message)
                assert str(error).startswith(f"the model raised {error.type}")
                assert len(str(error)) < 100_000
                np.testing.assert_array_equal(
                    model.infer({"how": np.array(""), "x": np.arange(3)})["output"], np.arange(3)
                )
        with pytest.raises(ModelError) as caught:
            model.infer({"how": np.array("raise")})
        assert "models.py" in caught.value.traceback and "in _raise" in caught.value.traceback
        assert "workers/loop.py" not in caught.value.traceback
        with pytest.raises(ModelError, match="unexpected keyword argument 'nothing'"):
            model.infer({"nothing": np.zeros(1)})
        if python != "none":
            del caught, error
            gc.collect()
            for _ in range(3):
                model.infer({"how": np.array("")})
            assert model.stats().blocks_held <= 1


@pytest.mark.parametrize("python", PYTHONS)
def test_a_model_may_print_what_it_likes(python: str, caplog: pytest.LogCaptureFixture) -> None:
    with opexec.load(source("flooding"), env=interpreter(python)) as model:
        x = np.arange(10.0)
        for lines in (0, 1, 2000):
            np.testing.assert_array_equal(model.infer({"lines": np.array(lines), "x": x})["output"], x)
        assert model.workers[0].state == "ready"


def test_a_model_may_fork(tmp_path: Any) -> None:
    with opexec.load(source("forking")) as model:
        for number in range(5):
            assert model.infer({"x": np.array(number)})["output"] == number
