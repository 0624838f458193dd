"""A spec means one thing however it is written, and a call that does not fit it says everything that is wrong."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opexec.errors import SpecError
from opexec.spec import (
    TensorSpec,
    bind_inputs,
    bind_outputs,
    concrete_shape,
    fit_shape,
    parse_specs,
)

# ---- a spec as a value

PADDED = np.dtype({"names": ["a", "b"], "formats": ["u1", ">i4"], "offsets": [0, 4], "itemsize": 12})


@pytest.mark.parametrize(
    "shape, kept",
    [
        (None, None),
        ((), ()),
        ([1, 0], (1, 0)),
        (["batch", None, 3], ("batch", None, 3)),
        (np.array([2, 3]), (2, 3)),
        ((np.uint8(7),), (7,)),
    ],
)
def test_shapes(shape, kept):
    spec = TensorSpec("x", "uint8", shape)
    assert spec.shape == kept
    assert all(type(dim) in (int, str, type(None)) for dim in spec.shape or ())


@pytest.mark.parametrize(
    "shape, message",
    [
        (3, "a shape must be a sequence .*; got 3"),
        ("n", "a shape must be a sequence .*; got 'n'"),
        ({"n": 1}, "a shape must be a sequence"),
        ((-1,), "a size cannot be negative, got -1; None stands for any size"),
        (("3",), "'3' is no symbol"),
        (("-1",), "'-1' is no symbol"),
        (("",), "'' is no symbol"),
        ((True,), "got True"),
        ((2.0,), "got 2.0"),
        (((1,),), r"got \(1,\)"),
        ((1,) * 33, "at most 32 dimensions, got 33"),
    ],
)
def test_what_is_no_shape_says_what_was_expected(shape, message):
    with pytest.raises(SpecError, match=f"the spec of 'x': .*{message}"):
        TensorSpec("x", "uint8", shape)


@pytest.mark.parametrize("name", ["", None, 3, b"x"])
def test_what_is_no_name_says_what_was_expected(name):
    with pytest.raises(SpecError, match="a tensor's name must be a non-empty str, got"):
        TensorSpec(name, "uint8", ())


names = st.text(min_size=1, max_size=8)
symbols = st.sampled_from(["n", "m", "batch", "größe"])
shapes = st.none() | st.lists(st.none() | symbols | st.integers(0, 5), max_size=4)
dtype_names = st.sampled_from(
    ["float32", "bool", "string", "bytes", "datetime64[us]", "bfloat16", str(PADDED)]
)
specs = st.builds(TensorSpec, names, dtype_names, shapes)


@given(specs)
def test_a_spec_survives_json(spec):
    again = TensorSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and hash(again) == hash(spec)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"name": "x", "dtype": "float32"},
        {"name": "x", "dtype": "f4", "shape": None, "size": 3},
        "x",
        ("x", "f4", ()),
    ],
)
def test_what_is_no_entry_says_what_was_expected(entry):
    with pytest.raises(
        SpecError, match='a spec is a TensorSpec or a dict of "name", "dtype" and "shape", got'
    ):
        TensorSpec.from_dict(entry)


def test_a_spec_reads_as_it_is_said():
    assert repr(TensorSpec("image", np.uint8, ("h", "w", 3))) == "image: uint8[h, w, 3]"
    assert repr(TensorSpec("x", float, (None, 2))) == "x: float64[?, 2]"
    assert repr(TensorSpec("x", str, ())) == "x: string[]"
    assert repr(TensorSpec("x", "f4", None)) == "x: float32[...]"


def test_a_spec_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TensorSpec("x", "f4", ()).dtype = "f8"


def test_lists_of_specs():
    x, y = TensorSpec("x", "f4", ("n",)), TensorSpec("y", "u1", None)
    assert parse_specs(None, "input") is None
    assert parse_specs([x, y.to_dict()], "input") == (x, y)
    assert parse_specs(iter([x]), "input") == (x,)
    assert parse_specs([], "input") == ()
    for wrong in (x, x.to_dict(), "x", 3):
        with pytest.raises(SpecError, match="the output specs must be a list of TensorSpec or dicts, got"):
            parse_specs(wrong, "output")
    with pytest.raises(SpecError, match="a spec is a TensorSpec or a dict"):
        parse_specs(["x"], "input")
    with pytest.raises(SpecError, match="two input specs are named 'x'"):
        parse_specs([x, y, x], "input")


# ---- a call


def tensors(**given_tensors):
    return {name: (np.dtype(dtype), shape) for name, (dtype, shape) in given_tensors.items()}


@st.composite
def calls(draw):
    """Specs of inputs and outputs, tensors that fit them, and the values of the symbols."""
    values = {symbol: draw(st.integers(0, 4)) for symbol in ("n", "m", "k")}
    dims = st.one_of(st.none(), st.integers(0, 4), st.sampled_from(sorted(values)))

    def side(prefix):
        found, fitting = [], {}
        for index in range(draw(st.integers(0, 3))):
            dtype = draw(st.sampled_from(["float32", "uint8", "int64"]))
            shape = draw(st.none() | st.lists(dims, max_size=3))
            sizes = [
                draw(st.integers(0, 4)) if dim is None else values.get(dim, dim)
                for dim in (draw(st.lists(st.none(), max_size=2)) if shape is None else shape)
            ]
            spec = TensorSpec(f"{prefix}{index}", dtype, shape)
            found.append(spec)
            fitting[spec.name] = (np.dtype(dtype), tuple(sizes))
        return found, fitting

    return side("in"), side("out"), values


def used(found):
    return {dim for spec in found for dim in spec.shape or () if isinstance(dim, str)}


@given(calls())
def test_symbols_are_bound_over_inputs_and_outputs_together(call):
    (inputs, given_inputs), (outputs, given_outputs), values = call
    bound = bind_inputs(inputs, given_inputs)
    assert bound == {symbol: values[symbol] for symbol in used(inputs)}
    before = dict(bound)
    everything = bind_outputs(outputs, given_outputs, bound)
    assert everything == {symbol: values[symbol] for symbol in used(inputs) | used(outputs)}
    assert bound == before
    for spec in inputs + outputs:
        if spec.shape is not None and None not in spec.shape:
            assert concrete_shape(spec, everything) == {**given_inputs, **given_outputs}[spec.name][1]


@given(calls(), st.data())
def test_one_misfit_is_found_and_named(call, data):
    (inputs, given_inputs), _, values = call
    assume(inputs)
    spec = data.draw(st.sampled_from(inputs))
    dtype, sizes = given_inputs[spec.name]
    others = used(one for one in inputs if one is not spec)
    # Axes that say something: a fixed size, or a symbol that another input has too.
    bound_axes = [
        axis
        for axis, dim in enumerate(spec.shape or ())
        if isinstance(dim, int) or dim is not None and dim in others
    ]
    changes = (
        ["dtype", "missing", "extra"] + ["rank"] * (spec.shape is not None) + ["size"] * bool(bound_axes)
    )
    change = data.draw(st.sampled_from(changes))
    broken, blamed = dict(given_inputs), {spec.name}
    if change == "dtype":
        broken[spec.name] = (np.dtype("float16"), sizes)
    elif change == "missing":
        del broken[spec.name]
    elif change == "extra":
        broken["elsewhere"], blamed = (dtype, sizes), {"elsewhere"}
    elif change == "rank":
        broken[spec.name] = (dtype, (*sizes, 1))
    else:
        axis = data.draw(st.sampled_from(bound_axes))
        broken[spec.name] = (dtype, (*sizes[:axis], sizes[axis] + 1, *sizes[axis + 1 :]))
        dim = spec.shape[axis]
        # Which of two inputs with different values is wrong, nobody can say: the later one is blamed.
        blamed |= {one.name for one in inputs if isinstance(dim, str) and dim in (one.shape or ())}
    with pytest.raises(SpecError) as caught:
        bind_inputs(inputs, broken)
    first_line = str(caught.value).splitlines()[0]
    assert any(f"'{name}'" in first_line for name in blamed)


IMAGE = TensorSpec("image", "uint8", ("h", "w", 3))
SCALE = TensorSpec("scale", "float32", ())
MASK = TensorSpec("mask", "bool", ("h", "w"))


@pytest.mark.parametrize(
    "given_tensors, message",
    [
        (
            tensors(image=("f4", (4, 5, 3)), scale=("f4", ()), mask=("?", (4, 5))),
            "input 'image': expected uint8[h, w, 3], got float32[4, 5, 3]: the dtype must be uint8 "
            "(array.astype('uint8') converts)",
        ),
        (
            tensors(image=("u1", (4, 5)), scale=("f4", ()), mask=("?", (4, 5))),
            "input 'image': expected uint8[h, w, 3], got uint8[4, 5]: the rank must be 3, not 2",
        ),
        (
            tensors(image=("u1", (4, 5, 4)), scale=("f4", ()), mask=("?", (4, 5))),
            "input 'image': expected uint8[h, w, 3], got uint8[4, 5, 4]: axis 2 must be 3, not 4",
        ),
        (
            tensors(image=("u1", (4, 5, 3)), scale=("f4", ()), mask=("?", (4, 6))),
            "input 'mask': expected bool[h, w], got bool[4, 6]: axis 1 is 6, but w is 5 by axis 1 of input 'image'",
        ),
        (
            tensors(image=("u1", (4, 5, 3)), mask=("?", (4, 5))),
            "input 'scale' is missing; expected float32[]",
        ),
        (
            tensors(image=("u1", (4, 5, 3)), scale=("f4", ()), mask=("?", (4, 5)), zoom=("f4", ())),
            "input 'zoom' is unknown; the model's inputs are 'image', 'scale', 'mask'",
        ),
        (
            tensors(image=("u1", (4, 5, 3)), sclae=("f4", ()), mask=("?", (3, 5))),
            "inputs 'scale', 'mask', 'sclae' do not fit the spec:\n"
            "  input 'scale' is missing; expected float32[]\n"
            "  input 'mask': expected bool[h, w], got bool[3, 5]: axis 0 is 3, but h is 4 by axis 0 of input 'image'\n"
            "  input 'sclae' is unknown; did you mean 'scale'?",
        ),
        (
            tensors(image=("O", (4, 5, 3)), scale=("f4", ()), mask=("?", (4, 5))),
            "input 'image': expected uint8[h, w, 3], got object[4, 5, 3]: the dtype must be uint8 "
            "(array.astype('uint8') converts)",
        ),
    ],
)
def test_messages(given_tensors, message):
    with pytest.raises(SpecError) as caught:
        bind_inputs([IMAGE, SCALE, MASK], given_tensors)
    assert str(caught.value) == message


def test_the_first_line_stays_short():
    many = [TensorSpec(f"x{index}", "f4", ()) for index in range(100)]
    with pytest.raises(SpecError) as caught:
        bind_inputs(many, {})
    lines = str(caught.value).splitlines()
    assert lines[0] == "inputs 'x0', 'x1', 'x2' and 97 more do not fit the spec:" and len(lines) == 101


def test_a_name_that_is_no_text_is_unknown():
    with pytest.raises(SpecError, match="input 0 is unknown"):
        bind_inputs([SCALE], {**tensors(scale=("f4", ())), 0: (np.dtype("f4"), ())})
    with pytest.raises(SpecError, match="input 'x' is unknown; the model has no inputs"):
        bind_inputs([], tensors(x=("f4", ())))


def test_outputs_are_held_against_the_inputs_and_each_other():
    outputs = [TensorSpec("masks", "f4", ("count", "h")), TensorSpec("scores", "f4", ("count",))]
    fits = tensors(masks=("f4", (7, 4)), scores=("f4", (7,)))
    assert bind_outputs(outputs, fits, {"h": 4}) == {"h": 4, "count": 7}
    with pytest.raises(SpecError, match="output 'masks': .*axis 1 is 4, but h is 5 by the inputs"):
        bind_outputs(outputs, fits, {"h": 5})
    with pytest.raises(
        SpecError, match="output 'scores': .*axis 0 is 8, but count is 7 by axis 0 of output 'masks'"
    ):
        bind_outputs(outputs, {**fits, **tensors(scores=("f4", (8,)))}, {})
    with pytest.raises(
        SpecError, match=r"output 'masks': expected float32\[count, h\], got float64\[7, 4\]"
    ) as caught:
        bind_outputs(outputs, {**fits, **tensors(masks=("f8", (7, 4)))}, {})
    assert "astype" not in str(caught.value)


def test_a_symbol_twice_in_one_shape():
    square = [TensorSpec("x", "f4", ("n", "n"))]
    assert bind_inputs(square, tensors(x=("f4", (3, 3)))) == {"n": 3}
    with pytest.raises(SpecError, match="axis 1 is 4, but n is 3 by axis 0 of input 'x'"):
        bind_inputs(square, tensors(x=("f4", (3, 4))))


def test_concrete_shapes():
    assert concrete_shape(IMAGE, {"h": 4, "w": 0}) == (4, 0, 3)
    with pytest.raises(
        SpecError, match=r"axis 1 of image: uint8\[h, w, 3\] is the unbound symbol 'w'; give the shape"
    ):
        concrete_shape(IMAGE, {"h": 4})
    with pytest.raises(SpecError, match="axis 0 of x: .* is any size"):
        concrete_shape(TensorSpec("x", "f4", (None,)), {})
    with pytest.raises(SpecError, match="leaves the shape open"):
        concrete_shape(TensorSpec("x", "f4", None), {})


def test_a_shape_is_fitted_by_itself():
    assert fit_shape(IMAGE, [np.int64(4), 5, 3]) == (4, 5, 3)
    assert fit_shape(TensorSpec("x", "f4", None), (2,)) == (2,)
    square = TensorSpec("x", "f4", ("n", "n"))
    for spec, shape, message in [
        (IMAGE, (4, 5), "rank must be 3, not 2"),
        (IMAGE, (4, 5, 4), "axis 2 must be 3, not 4"),
        (square, (3, 4), "axis 1 is 4, but n is 3 by axis 0"),
        (IMAGE, (4, -5, 3), "cannot be negative"),
        (IMAGE, (4, "w", 3), "must be a sequence of ints"),
        (IMAGE, 4, "must be a sequence of ints"),
    ]:
        with pytest.raises(SpecError, match=message):
            fit_shape(spec, shape)
