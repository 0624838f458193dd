"""A model's result comes back as it was: nesting, keys, order, types and every bit; and nothing the other side writes is trusted."""

from __future__ import annotations

import collections
import enum
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from opexec.ipc.packing import pack, unpack
from opexec.workers.structure import (
    MAX_DEPTH,
    MAX_NODES,
    Structure,
    UnsupportedOutput,
    building,
    flatten,
    structures,
    unflatten,
)

Boxes = collections.namedtuple("Boxes", ["corners", "score"])


class Level(enum.IntEnum):
    HIGH = 3


class Color(str, enum.Enum):
    RED = "red"


class Unmasked:
    """An array of another library: no ndarray, but with __array__."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class Exporter:
    """An array that offers DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Moody:
    """An array of another library that cannot be read at times."""

    def __init__(self, error=None):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return np.array([1, 2])


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("the device is gone")


def same(a, b):
    """Equal in type, nesting, order and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        bits = a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()
        return bits and a.dtype == b.dtype and a.shape == b.shape
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    if isinstance(a, (np.generic, float, complex)):
        return repr(a) == repr(b)
    return a == b


def over_the_wire(result):
    """What the other side builds when it has the leaves and the tree as it was sent."""
    names, leaves, plan = flatten(result)
    assert names == plan.names and len(names) == len(leaves) == len(set(names))
    assert all(type(leaf) is np.ndarray for leaf in leaves)
    received = Structure.from_plain(unpack(pack({"tree": plan.tree}))["tree"])
    assert received == plan and hash(received) == hash(plan)
    return unflatten(received, leaves)


arrays = hnp.arrays(
    st.sampled_from(["?", "u1", "<i8", ">f4", "f8", "c16", "U3", "S2", "M8[s]"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
python_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.binary(),
)
numpy_scalars = st.one_of(
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int8, st.integers(-128, 127)),
    st.builds(np.str_, st.text()),
    st.builds(np.bytes_, st.binary()),
    st.builds(np.bool_, st.booleans()),
    st.builds(np.datetime64, st.integers(0, 2**40), st.just("ms")),
)
# No "/" and no digits alone: such keys can give two leaves one name, which is an error of its own.
keys = st.one_of(st.text("abcé", max_size=3), st.integers(-(2**63), 2**64 - 1))
results = st.recursive(
    st.one_of(arrays, python_scalars, numpy_scalars),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.builds(Boxes, inner, inner),
    ),
    max_leaves=12,
)


def rebuilt(result):
    """`result` with the test's own named tuples replaced by what opexec makes of them, which is another class of that form."""
    if isinstance(result, (list, tuple)):
        items = [rebuilt(item) for item in result]
        return (
            building._namedtuple("Boxes", Boxes._fields)(*items)
            if isinstance(result, Boxes)
            else type(result)(items)
        )
    if isinstance(result, dict):
        return {key: rebuilt(value) for key, value in result.items()}
    return result


@given(results)
def test_a_result_comes_back_as_it_was(result):
    assert same(over_the_wire(result), rebuilt(result))


@given(results)
def test_a_structure_met_before_gives_the_same_answer(result):
    first, second = flatten(result), flatten(result)
    assert first[0] == second[0] and first[2] == second[2]
    assert all(map(same, first[1], second[1]))


@given(st.dictionaries(st.text(max_size=3), arrays, min_size=1, max_size=5), st.integers(0, 4), results)
def test_a_dict_with_known_keys_may_hold_something_else_this_time(result, index, other):
    flatten(result)
    changed = dict(result)
    changed[sorted(changed)[index % len(changed)]] = other
    try:
        came = over_the_wire(changed)
    except UnsupportedOutput as error:
        assert "are named" in str(error)
    else:
        assert same(came, rebuilt(changed))


X, Y = np.arange(3), np.zeros((2, 2), np.float32)


@pytest.mark.parametrize(
    "result, names",
    [
        (X, ["output"]),
        (1.5, ["output"]),
        (None, []),
        ([], []),
        ({}, []),
        ((X, Y), ["output_0", "output_1"]),
        ([X, None, Y], ["output_0", "output_2"]),
        ({"boxes": X, "scores": Y}, ["boxes", "scores"]),
        ({"scope/boxes:0": X}, ["scope/boxes:0"]),
        (
            {"boxes": (X, Y), "mask": {"raw": X, "size": [1, 2]}},
            ["boxes/0", "boxes/1", "mask/raw", "mask/size/0", "mask/size/1"],
        ),
        (({"a": X}, [X, (Y,)]), ["output_0/a", "output_1/0", "output_1/1/0"]),
        ({0: X, 7: Y}, ["0", "7"]),
        (Boxes(X, [1.0]), ["corners", "score/0"]),
        ([Boxes(X, 2)], ["output_0/corners", "output_0/score"]),
    ],
)
def test_names(result, names):
    assert list(flatten(result)[0]) == names


@pytest.mark.parametrize("result", [{"a/b": X, "a": {"b": X}}, {0: X, "0": X}, {"a": [X], "a/0": 1}])
def test_two_outputs_of_one_name_are_an_error(result):
    with pytest.raises(UnsupportedOutput, match="two of the model's outputs are named '(a/b|0|a/0)'"):
        flatten(result)


def test_arrays_are_not_copied():
    matrix = np.zeros((1, 2)).view(np.matrix)
    _, leaves, plan = flatten({"x": X, "deep": [Y, (X,)], "matrix": matrix, "other": Unmasked(Y)})
    assert leaves[0] is X and leaves[1] is Y and leaves[2] is X and leaves[4] is Y
    assert type(leaves[3]) is np.ndarray and np.shares_memory(leaves[3], matrix)
    result = unflatten(plan, leaves)
    assert result["x"] is X and result["deep"][0] is Y
    assert flatten(X)[1][0] is X and unflatten(flatten(X)[2], [X]) is X


def test_containers_are_made_anew():
    given_list = [X, Y]
    _, leaves, plan = flatten(given_list)
    assert unflatten(plan, leaves) is not leaves and leaves is not given_list


@pytest.mark.parametrize(
    "value, dtype",
    [
        (True, np.bool_),
        (-(2**63), np.int64),
        (2**63 - 1, np.int64),
        (2**63, np.uint64),
        (2**64 - 1, np.uint64),
        (-0.0, np.float64),
        (1e-320j, np.complex128),
        ("text\0", np.object_),
        (b"raw\0\0", np.object_),
        (np.float16(1.5), np.float16),
        (np.str_("a\0"), np.object_),
    ],
)
def test_a_scalar_travels_as_an_array_of_rank_0_and_comes_back_as_it_was(value, dtype):
    _, leaves, _ = flatten(value)
    assert leaves[0].shape == () and leaves[0].dtype == dtype
    assert same(over_the_wire(value), value)
    assert same(over_the_wire({"x": [value]}), {"x": [value]})


def test_a_text_scalar_may_come_back_as_numpys_own_text():
    assert same(unflatten(flatten("é")[2], [np.array("é")]), "é")
    assert same(unflatten(flatten(b"raw")[2], [np.array(b"raw")]), b"raw")


def test_subclasses_come_back_as_what_they_extend():
    ordered = collections.OrderedDict([("b", X), ("a", Y)])
    assert same(over_the_wire(ordered), {"b": X, "a": Y})
    assert same(over_the_wire(types.MappingProxyType({"a": X})), {"a": X})
    assert same(over_the_wire([Level.HIGH, Color.RED, {Color.RED: X}]), [3, "red", {"red": X}])
    odd = collections.namedtuple("odd", ["class", "x"], rename=True)
    assert same(over_the_wire(odd(1, 2)), (1, 2))


def test_a_named_tuple_keeps_its_name_and_fields():
    boxes = over_the_wire(Boxes(X, 0.5))
    assert boxes.corners is X and boxes.score == 0.5 and boxes == (X, 0.5)
    assert type(boxes).__name__ == "Boxes"


def test_dlpack():
    if hasattr(np, "from_dlpack"):
        _, leaves, _ = flatten({"x": Exporter(Y)})
        assert np.shares_memory(leaves[0], Y)
    else:
        with pytest.raises(UnsupportedOutput, match="output 'x' is an Exporter: numpy cannot read it"):
            flatten({"x": Exporter(Y)})


@pytest.mark.parametrize(
    "result, message",
    [
        ({1, 2}, "the model's result is a set; a model returns arrays, numbers, strings"),
        ({"boxes": {1}}, "output 'boxes' is a set"),
        ({"x": [X, {"y": (1, object())}]}, "output 'x/1/y/1' is an object"),
        ((X, lambda: 1), "output 'output_1' is a function"),
        ([np.ndarray], "output 'output_0' is a type"),
        (range(3), "the model's result is a range"),
        ({"x": {(1, 2): X}}, r"output 'x' is a dict with the key \(1, 2\)"),
        ({True: X}, "the model's result is a dict with the key True"),
        ({2**64: X}, "the model's result is a dict with the key 18446744073709551616"),
        ([0, 2**64], "output 'output_1' is an int beyond 64 bits"),
        (-(2**63) - 1, "the model's result is an int beyond 64 bits"),
        ({"x": np.ma.array([1])}, "output 'x' is a MaskedArray: .*filled"),
        ({"x": Broken()}, "output 'x' is a Broken: .*the device is gone"),
    ],
)
def test_what_cannot_travel_is_named(result, message):
    with pytest.raises(UnsupportedOutput, match=message):
        flatten(result)
    assert issubclass(UnsupportedOutput, TypeError)


def test_a_class_that_had_arrays_before_is_looked_at_anew():
    array = np.arange(3)
    for result in (
        Unmasked(array),
        {"x": Unmasked(array)},
        (Unmasked(array), array),
        [array, Unmasked(array)],
    ):
        for _ in range(3):
            names, leaves, structure = flatten(result)
            assert len(names) == len(leaves) and all(type(one) is np.ndarray for one in leaves)
            assert all(np.shares_memory(one, array) for one in leaves)
            assert type(unflatten(structure, leaves)) is (
                type(result) if type(result) is not Unmasked else np.ndarray
            )
    for _ in range(2):
        assert flatten({"x": Moody()})[1][0].tolist() == [1, 2]
        with pytest.raises(UnsupportedOutput, match="output 'x' is a Moody: .*the device is gone"):
            flatten({"x": Moody(RuntimeError("the device is gone"))})
        with pytest.raises(UnsupportedOutput, match="the model's result is a Moody: .*the device is gone"):
            flatten(Moody(RuntimeError("the device is gone")))


def nested(levels):
    result = X
    for _ in range(levels):
        result = [result]
    return result


def test_depth_and_size_have_the_same_bounds_on_both_sides():
    assert same(over_the_wire(nested(MAX_DEPTH)), nested(MAX_DEPTH))
    with pytest.raises(UnsupportedOutput, match="nested more than 32 levels"):
        flatten(nested(MAX_DEPTH + 1))
    with pytest.raises(ValueError, match="nested more than 32 levels"):
        Structure.from_plain(["list", flatten(nested(MAX_DEPTH))[2].tree])

    full = [1.0] * (MAX_NODES - 1)
    assert over_the_wire(full) == full
    with pytest.raises(UnsupportedOutput, match="more than 16384 values"):
        flatten([*full, None])
    with pytest.raises(ValueError, match="more than 16384 nodes"):
        Structure.from_plain(["list"] + ["none"] * MAX_NODES)


def test_a_list_that_holds_itself_is_refused():
    cycle = []
    cycle.append(cycle)
    with pytest.raises(UnsupportedOutput, match="nested more than"):
        flatten(cycle)


@pytest.mark.parametrize(
    "tree",
    [
        None,
        3,
        b"array",
        "arrays",
        "list",
        {},
        [],
        [[]],
        ["set", "array"],
        [["list"], "array"],
        ["list", 3],
        ["list", None],
        ["dict"],
        ["dict", "array"],
        ["dict", "ab", "array", "array"],
        ["dict", ["a"]],
        ["dict", ["a"], "array", "array"],
        ["dict", ["a", "a"], "array", "array"],
        ["dict", [None], "array"],
        ["dict", [True], "array"],
        ["dict", [1.0], "array"],
        ["dict", [b"a"], "array"],
        ["dict", [["a"]], "array"],
        ["dict", ["a/b", "a"], "array", ["dict", ["b"], "array"]],
        ["namedtuple", "T"],
        ["namedtuple", "T", "x", "array"],
        ["namedtuple", "T", ["x", "y"], "array"],
        ["namedtuple", "T", ["x", "x"], "array", "array"],
        ["namedtuple", "T", ["_x"], "array"],
        ["namedtuple", "T", ["class"], "array"],
        ["namedtuple", "T", ["x=print()"], "array"],
        ["namedtuple", "T(object): pass #", ["x"], "array"],
        ["namedtuple", "None", ["x"], "array"],
        ["namedtuple", 3, ["x"], "array"],
        ["namedtuple", "T", [["x"]], "array"],
    ],
)
def test_a_malformed_tree_is_refused(tree):
    with pytest.raises(ValueError, match="malformed"):
        Structure.from_plain(tree)


words = st.sampled_from(
    [
        "array",
        "none",
        "int",
        "str",
        "scalar",
        "list",
        "tuple",
        "dict",
        "namedtuple",
        "T",
        "x",
        "y",
        "",
        "class",
    ]
)
plain = st.recursive(
    st.one_of(words, st.none(), st.booleans(), st.integers(), st.binary(max_size=2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.builds(lambda kind, rest: [kind, *rest], words, st.lists(inner, max_size=3)),
        st.builds(
            lambda found: ["dict", list(found), *found.values()], st.dictionaries(words, inner, max_size=3)
        ),
    ),
    max_leaves=20,
)
SAMPLES = {"scalar": np.array(1.5, np.float32), "int": np.array(3), "str": np.array("text"), "array": X}


def leaf_kinds(tree):
    if isinstance(tree, str):
        return [] if tree == "none" else [tree]
    children = {"dict": 2, "namedtuple": 3}.get(tree[0], 1)
    return [kind for child in tree[children:] for kind in leaf_kinds(child)]


@given(plain)
def test_whatever_is_accepted_is_a_structure_that_flatten_makes(data):
    try:
        received = Structure.from_plain(data)
    except ValueError:
        return
    leaves = [SAMPLES[kind] for kind in leaf_kinds(received.tree)]
    assert len(leaves) == len(received.names)
    assert flatten(unflatten(received, leaves))[2] == received


@pytest.mark.parametrize("result", [X, {"a": X, "b": X}, (X, X), [1, {"x": X}], None])
def test_the_number_of_leaves_must_agree(result):
    _, leaves, plan = flatten(result)
    for wrong in ([*leaves, X], leaves[:-1]):
        if len(wrong) != len(leaves):
            with pytest.raises(ValueError, match=f"{len(leaves)} leaves came with {len(wrong)} arrays"):
                unflatten(plan, wrong)


@pytest.mark.parametrize(
    "value, leaf",
    [
        (1, np.array(1.0)),
        (1, np.array([1])),
        (1, np.array(True)),
        (True, np.array(1)),
        (1.0, np.array(1)),
        (1j, np.array(1.0)),
        ("a", np.array(b"a")),
        ("a", np.array(None)),
        (b"a", np.array("a")),
        (np.float32(1), np.array([1.0], np.float32)),
    ],
)
def test_a_leaf_that_is_not_the_scalar_it_stands_for_is_refused(value, leaf):
    with pytest.raises(ValueError, match="came as an array of"):
        unflatten(flatten([value])[2], [leaf])


def test_a_model_that_invents_keys_does_not_fill_the_memory():
    for number in range(3 * structures._MAX_CACHED):
        over_the_wire({f"key {number}": X})
    over_the_wire([X] * (structures._MAX_CACHED_NAMES + 1))
    kept = [*structures._structures.values(), *structures._flat_structures.values()]
    assert len(kept) <= 2 * structures._MAX_CACHED
    assert max(len(one.names) for one in kept) <= structures._MAX_CACHED_NAMES


def test_equal_structures_are_one_object_and_others_are_not_equal():
    assert flatten({"a": X, "b": Y})[2] is flatten({"a": Y, "b": X})[2]
    different = [
        flatten(result)[2] for result in (X, 1, 1.0, (X,), [X], {"a": X}, {"b": X}, {0: X}, Boxes(X, X))
    ]
    assert len(set(different)) == len(different)
    assert different[0] != "array"
