"""Inputs made from specs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opexec import OpexecError, SpecError, TensorSpec
from opexec.bench import inputs
from opexec.spec import InputSpecs, bind_inputs

DTYPES = [
    "float32",
    "float64",
    "float16",
    "uint8",
    "int64",
    "int8",
    "bool",
    "complex64",
    "bfloat16",
    "datetime64[ns]",
]
DTYPES += ["string", "bytes"]
DIMS = st.one_of(st.integers(0, 4), st.sampled_from(["batch", "width"]))


@given(
    st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(DIMS, max_size=3)), min_size=1, max_size=4),
    st.integers(1, 5),
)
@settings(max_examples=60)
def test_what_is_made_fits_the_specs_and_is_the_same_for_one_seed(
    drawn: list[tuple[str, list[Any]]], batch: int
) -> None:
    specs = [TensorSpec(f"x{place}", dtype, shape) for place, (dtype, shape) in enumerate(drawn)]
    used = {dim for spec in specs for dim in spec.shape or () if isinstance(dim, str)}
    sizes = {name: size for name, size in {"batch": batch, "width": 3}.items() if name in used}
    made = inputs.make(specs, sizes=sizes, seed=batch)
    symbols = bind_inputs(specs, {name: (array.dtype, array.shape) for name, array in made.items()})
    assert symbols == sizes
    again = inputs.make(specs, sizes=sizes, seed=batch)
    assert all(np.array_equal(made[name], again[name]) for name in made if made[name].dtype.kind not in "M")


def test_a_batch_is_the_first_axis_of_all_inputs() -> None:
    specs = [
        TensorSpec("a", "float32", ("n", 3)),
        TensorSpec("b", "uint8", (None, 2)),
        TensorSpec("c", "bool", (5,)),
    ]
    shapes = {name: array.shape for name, array in inputs.make(specs, batch=8).items()}
    assert shapes == {"a": (8, 3), "b": (8, 2), "c": (5,)}
    assert inputs.make(specs)["a"].shape == (1, 3)


def test_given_inputs_decide_the_sizes_of_others() -> None:
    specs = [TensorSpec("a", "float32", ("n", "w")), TensorSpec("b", "int64", ("n", "w"))]
    a = np.zeros((4, 6), np.float32)
    made = inputs.make(specs, given={"a": a})
    assert made["a"] is a and made["b"].shape == (4, 6)


def test_an_input_that_may_be_left_out_is_left_out() -> None:
    specs = InputSpecs([TensorSpec("a", "float32", (2,)), TensorSpec("b", "float32", (None, None))], ["b"])
    assert set(inputs.make(specs)) == {"a"}


@pytest.mark.parametrize(
    "specs, asked, words",
    [
        ([TensorSpec("x", "float32", ("n", "w"))], {}, r"'w' in x: float32\[n, w\] .*--size w=N"),
        ([TensorSpec("x", "float32", (1, None))], {}, r"axis 1 of .*--shape x=1,1"),
        ([TensorSpec("x", "float32", None)], {}, "no known shape"),
        ([TensorSpec("x", "float32", (2,))], {"batch": 4}, "first axis of every input is fixed"),
        ([TensorSpec("x", "float32", ("n",))], {"sizes": {"m": 4}}, "no input has the size 'm'; .* 'n'"),
        ([TensorSpec("x", "float32", ("n",))], {"given": {"y": np.zeros(1)}}, "no input 'y'"),
        (
            [TensorSpec("x", "float32", (2,))],
            {"shapes": {"x": TensorSpec("x", "float32", (3,))}},
            "axis 0 must be 2",
        ),
        (None, {}, "no specs"),
    ],
)
def test_what_stays_open_or_fits_nothing_is_refused(specs: Any, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        inputs.make(specs, **asked)


@pytest.mark.parametrize(
    "text, dtype, shape",
    [
        ("1,224,224,3", "float32", (1, 224, 224, 3)),
        ("uint8[2, 3]", "uint8", (2, 3)),
        ("int64[]", "int64", ()),
        ("[4]", "float32", (4,)),
        ("7", "float32", (7,)),
    ],
)
def test_shapes_in_words(text: str, dtype: str, shape: tuple[int, ...]) -> None:
    assert inputs.parse_shape("x", text) == TensorSpec("x", dtype, shape)


@pytest.mark.parametrize("text", ["", "1,,2", "a[b]", "flaot32[1]", "1;2", "-1,2"])
def test_no_shapes(text: str) -> None:
    with pytest.raises(ValueError):
        inputs.parse_shape("x", text)


def test_a_shape_keeps_the_models_own_dtype() -> None:
    made = inputs.make([TensorSpec("x", "uint8", (None, None))], shapes={"x": inputs.parse_shape("x", "2,5")})
    assert made["x"].dtype == np.uint8 and made["x"].shape == (2, 5)


def test_files_of_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", x=np.arange(3), y=np.zeros(2))
    assert sorted(inputs.from_file(tmp_path / "good.npz")) == ["x", "y"]
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], object))
    np.save(tmp_path / "one.npy", np.zeros(2))
    for name in ("pickled.npz", "one.npy", "absent.npz"):
        with pytest.raises(OpexecError, match=name):
            inputs.from_file(tmp_path / name)
