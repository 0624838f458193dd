"""The caffe2 platform, with the Caffe2 that torch 1.x carries. Run by test_frameworks.py; Python >= 3.7."""

import os
import sys

import numpy as np
import pytest
from caffe2.python import core

from opexec.workers import platforms
from opexec.workers.structure import flatten

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from caffe2_models import AFFINE, affine_nets, given, write
from subject import affine, rows

F4 = np.float32
OPERATOR = core.CreateOperator


def load(folder, **options):
    return platforms.load("caffe2", str(folder), options)


def call(model, *args, **kwargs):
    names, leaves, _ = flatten(model.run(model.bind(list(args), kwargs), None))
    return {name: leaf.copy() for name, leaf in zip(names, leaves)}


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.fixture
def nets(tmp_path):
    """Writes a predict net of these operators, which takes x, and loads it."""

    def make(*operators, inputs=("x",), outputs=("y",), init=(), **options):
        return load(write(str(tmp_path), init, operators, list(inputs), list(outputs)), **options)

    return make


def test_a_model_says_what_it_is(tmp_path):
    import torch

    model = load(affine_nets(str(tmp_path)))
    assert (model.framework, model.version) == ("caffe2", torch.__version__)
    assert model.inputs is None and model.outputs is None  # the nets tell no dtypes
    for count in (3, 0, 1):
        assert same(call(model, x=rows(count))["y"], affine(rows(count)))


def test_inputs_are_read_where_they_lie(nets):
    """An operator that works in place on its input shows it: the caller's own array changes."""
    model = nets(OPERATOR("Relu", ["x"], ["x"]), OPERATOR("Copy", ["x"], ["y"]))
    x = rows(3)
    expected = np.maximum(x, 0)
    bound = model.bind([x], {})
    (y,) = flatten(model.run(bound, None))[1]
    assert same(y, expected) and same(x, expected)


def test_a_bound_input_is_looked_at_in_each_run_and_left_alone(tmp_path):
    model = load(affine_nets(str(tmp_path)))
    x, other = rows(3), rows(5) + 1
    bound, between = model.bind([x], {}), model.bind([other], {})
    for round in range(4):
        x[...] = rows(3) + round
        kept = x.copy()
        assert same(flatten(model.run(bound, None))[1][0], affine(x))
        assert same(flatten(model.run(between, None))[1][0], affine(other))
        assert same(x, kept)


def test_an_output_is_caffe2s_own_memory(tmp_path):
    model = load(affine_nets(str(tmp_path)))
    bound = model.bind([rows(3)], {})
    (first,) = flatten(model.run(bound, None))[1]
    (second,) = flatten(model.run(bound, None))[1]
    assert np.shares_memory(first, second)


def test_an_output_that_is_the_input(nets):
    model = nets(OPERATOR("Copy", ["x"], ["y"]), outputs=("x", "y"))
    result = call(model, rows(2))
    assert list(result) == ["x", "y"]
    assert same(result["x"], rows(2)) and same(result["y"], rows(2))


def test_several_inputs_in_the_order_of_the_net(nets):
    model = nets(
        OPERATOR("Sub", ["b", "a"], ["difference"]),
        OPERATOR("Mul", ["difference", "k"], ["y"], broadcast=1),
        inputs=("b", "a", "k"),
        outputs=("y", "difference"),
        init=[given("k", np.array([2], F4))],
    )
    b, a = rows(2) * 3, rows(2)
    for result in (call(model, b, a), call(model, b, a=a), call(model, a=a, b=b)):
        assert same(result["difference"], b - a) and same(result["y"], (b - a) * 2)


@pytest.mark.parametrize("name", "bool int8 int16 int32 int64 uint8 float16 float32 float64".split())
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_every_dtype_and_rank(name, shape, nets):
    x = np.arange(1, 1 + np.prod(shape, dtype=int)).astype(name).reshape(shape)
    assert same(call(nets(OPERATOR("Copy", ["x"], ["y"])), x)["y"], x)


@pytest.mark.parametrize("name", ["uint16", "uint32", "uint64"])
def test_dtypes_that_torch_lacks(name, nets):
    model = nets(OPERATOR("Copy", ["x"], ["y"]))
    with pytest.raises(TypeError, match="input 'x'.*" + name):
        model.bind([np.ones(3, name)], {})
    assert same(call(model, rows(1))["y"], rows(1))


@pytest.mark.parametrize(
    "change",
    [lambda x: x[::-1], lambda x: x[:, ::2], lambda x: np.asfortranarray(x), lambda x: x.astype(">f4")],
    ids=["reversed", "strided", "fortran", "big-endian"],
)
def test_arrays_of_any_layout(change, nets):
    x = change(rows(4, 8))
    assert same(call(nets(OPERATOR("Copy", ["x"], ["y"])), x)["y"], np.ascontiguousarray(x, F4))


def test_texts(nets):
    model = nets(OPERATOR("StringPrefix", ["x"], ["y"], length=2))
    for texts in (["one", "", "\u00e9\u00e9"], [b"one", b"", b"\xff\xfe\xfd"]):
        y = call(model, np.array(texts, object))["y"]
        expected = [(one.encode() if isinstance(one, str) else one)[:2] for one in texts]
        assert y.dtype == object and [_bytes(one) for one in y] == expected


def _bytes(text):
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def test_a_call_that_fails_leaves_the_next_one_right(tmp_path):
    model = load(affine_nets(str(tmp_path)))
    for wrong in (rows(2, 7), rows(2).astype("f8")):
        with pytest.raises(RuntimeError):
            call(model, wrong)
        assert same(call(model, rows(2))["y"], affine(rows(2)))
    with pytest.raises(TypeError, match=r"the model's inputs are \['x'\]; received \['z'\]"):
        call(model, z=rows(2))


def test_models_of_one_process_have_blobs_of_their_own(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    first = load(affine_nets(str(one)))
    init = [given("w", np.ones((3, 4), F4)), given("b", np.zeros(3, F4))]
    second = load(write(str(two), init, AFFINE, ["x", "w", "b"], ["y"]))
    for _ in range(2):
        assert same(call(first, rows(2))["y"], affine(rows(2)))
        assert same(call(second, rows(2))["y"], rows(2) @ np.ones((4, 3), F4))


@pytest.mark.parametrize("name", ["init_net.pb", "predict_net.pb"])
def test_a_folder_with_one_net_missing_or_damaged(name, tmp_path):
    path = os.path.join(affine_nets(str(tmp_path)), name)
    with open(path, "wb") as file:
        file.write(b"\xff" * 50)
    with pytest.raises(RuntimeError, match=r"caffe2 .* cannot load .*{}.*Environment\(".format(name)):
        load(tmp_path)
    os.remove(path)
    with pytest.raises(FileNotFoundError, match=name):
        load(tmp_path)


def test_nets_that_say_nothing_of_their_outputs_or_the_wrong_thing(nets):
    with pytest.raises(ValueError, match="the predict net names no outputs"):
        nets(OPERATOR("Copy", ["x"], ["y"]), outputs=())
    with pytest.raises(RuntimeError, match=r"caffe2 .* cannot load .* never produced by the net.* z\. "):
        nets(OPERATOR("Copy", ["x"], ["y"]), outputs=("z",))


def test_an_operator_of_another_version(nets):
    with pytest.raises(RuntimeError, match=r"(?s)caffe2 .* cannot load .*OperatorOfTheFuture"):
        nets(OPERATOR("OperatorOfTheFuture", ["x"], ["y"]))


def test_threads_are_set_and_other_options_refused(tmp_path):
    import torch

    model = load(affine_nets(str(tmp_path)), threads=1)
    assert torch.get_num_threads() == 1
    assert same(call(model, rows(2))["y"], affine(rows(2)))
    with pytest.raises(ValueError, match="no option 'device'; it knows threads"):
        load(tmp_path, device="cpu")
