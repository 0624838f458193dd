"""A plan means the same on both sides, its views lie inside its block, and none that says otherwise is accepted."""

from __future__ import annotations

import copy
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opexec.ipc.faults import ProtocolError
from opexec.ipc.packing import pack, unpack
from opexec.ipc.plan import Plan, text_capacities
from opexec.ipc.wire import ALIGNMENT, BYTES, MAX_RANK, PLACES_IN_RECORD, STRING

START = 3 * ALIGNMENT  # where the block begins in the mapping, with other people's bytes before and behind it

dtypes = st.sampled_from(
    ["?", "i1", ">i2", "<f4", ">f8", "c16", "M8[3us]", "S3", "U2", "V5", "S0"]
) | st.just(np.dtype([("a", "u1"), ("b", ">f4", (2,))]))


@st.composite
def numbers(draw):
    dtype = np.dtype(draw(dtypes))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    start = draw(st.integers(0, 250))
    return np.ndarray(
        shape, dtype, bytearray(index * 37 % 251 for index in range(start, start + 81 * dtype.itemsize))
    )


@st.composite
def text_tensors(draw):
    elements = draw(st.lists(st.text(max_size=20), max_size=4) | st.lists(st.binary(max_size=90), max_size=4))
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


@st.composite
def messages(draw, most=6):
    """Arrays of a message and the indices of those that lie outside its block."""
    arrays = draw(st.lists(numbers() | text_tensors(), max_size=most))
    arrays = [
        draw(st.sampled_from([array, array[::-1], array.T])) if array.ndim else array for array in arrays
    ]
    can_be_outside = [index for index, array in enumerate(arrays) if array.dtype != object]
    outside = draw(st.sets(st.sampled_from(can_be_outside))) if can_be_outside else ()
    return arrays, tuple(sorted(outside))


def planned(arrays, outside=(), note=None):
    encoded, capacities = text_capacities(arrays)
    names = tuple("tensor {}".format(index) for index in range(len(arrays)))
    return Plan.lay_out(7, names, arrays, note, outside, capacities), encoded


def over_the_wire(plan):
    return Plan.from_message(unpack(pack(plan.to_message())))


def mapping(plan):
    """A mapping that holds the plan's block at START, and nothing but 0xaa elsewhere."""
    map = mmap.mmap(-1, START + plan.size + mmap.PAGESIZE)
    map[:] = b"\xaa" * len(map)
    return map


def span(array):
    start = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def bits(array):
    """The bytes of every element in native order, without the padding, in C order."""
    if array.dtype.names is not None:
        return [bits(array[name]) for name in array.dtype.names]
    return (array if array.dtype.isnative else array.byteswap()).tobytes()


@given(messages(), st.sampled_from([0, "note", ["dict", ["a", "b"], "array"]]))
def test_what_one_side_fills_in_the_other_reads(message, note):
    arrays, outside = message
    sender, encoded = planned(arrays, outside, note)
    receiver = over_the_wire(sender)
    for field in (
        "id",
        "names",
        "dtypes",
        "shapes",
        "sizes",
        "offsets",
        "note",
        "size",
        "packed",
        "outside",
        "table",
        "texts",
    ):
        assert getattr(receiver, field) == getattr(sender, field), field

    map = mapping(sender)
    sender.fill(sender.views(map, START), arrays, encoded)
    views = receiver.views(map, START)
    block = np.frombuffer(map, np.uint8)[START : START + sender.size]
    ends = []
    for index, (array, view) in enumerate(zip(arrays, views)):
        if index in outside:
            assert view is None
            continue
        start, end = span(view)
        assert span(block)[0] <= start and end <= span(block)[1]
        assert (start - span(block)[0]) % ALIGNMENT == 0
        assert view.base is map, "a lease on this array would end while slices of it live"
        ends.append((start, end))
        if array.dtype == object:
            assert receiver.decode(index, view).tolist() == array.tolist()
        else:
            assert view.shape == array.shape and view.dtype == array.dtype.newbyteorder("=")
            assert bits(view) == bits(array)
    occupied = sorted(one for one in ends if one[0] < one[1])
    assert all(one[1] <= other[0] for one, other in zip(occupied, occupied[1:])), "tensors overlap"
    assert map[:START] == b"\xaa" * START and map[START + sender.size :] == b"\xaa" * mmap.PAGESIZE


@pytest.mark.parametrize("count", [1, PLACES_IN_RECORD, PLACES_IN_RECORD + 1, 100])
def test_places_of_tensors_outside_have_room(count):
    arrays = [np.arange(index + 1.0) for index in range(count + 1)]
    outside = tuple(range(1, count + 1))
    plan, _ = planned(arrays, outside)
    receiver = over_the_wire(plan)
    assert receiver.outside == outside and receiver.packed == (0,)
    assert (receiver.table >= 0) == (count > PLACES_IN_RECORD)
    if receiver.table < 0:
        return
    map = mapping(plan)
    plan.fill(plan.views(map, START), arrays, {})
    places = tuple(1 << 40 | 64 * index for index in range(count))
    plan.write_table(map, START, places)
    assert receiver.read_table(map, START) == places
    assert receiver.views(map, START)[0].tolist() == [0.0]
    assert map[:START] == b"\xaa" * START and map[START + plan.size :] == b"\xaa" * mmap.PAGESIZE


def test_a_message_without_tensors():
    plan = over_the_wire(planned([])[0])
    assert plan.names == () and plan.views(mapping(plan), START) == [] and plan.size > 0


def test_a_rank_that_old_numpy_cannot_hold_is_refused_and_named():
    array = np.broadcast_to(np.float32(0), (1,) * MAX_RANK)
    assert over_the_wire(planned([array])[0]).shapes == (array.shape,)
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        with pytest.raises(ValueError, match="'tensor 0' has 33 dimensions; expected at most 32"):
            planned([np.zeros((1,) * (MAX_RANK + 1), np.float32)])


def test_python_objects_are_refused_and_named():
    with pytest.raises(TypeError, match="'tensor 1'.*Python objects"):
        planned([np.zeros(2), np.zeros(2, [("a", "O")])])


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
def test_what_a_model_did_to_its_views_is_seen():
    plan, _ = planned([np.zeros((2, 3)), np.zeros(4, "i4")])
    map = mapping(plan)
    views = plan.views(map, START)
    views[0][...] = 5
    assert plan.intact(views)
    views[0].shape = (3, 2)
    assert not plan.intact(views)
    views[0].shape = (2, 3)
    assert plan.intact(views)
    views[1].dtype = "f4"
    assert not plan.intact(views)


# What the other side sent


def a_message():
    arrays = [
        np.zeros((2, 3), np.float32),
        np.array(["text", ""], object),
        np.zeros(5, "M8[s]"),
        np.zeros((0, 4), np.int8),
    ]
    return unpack(pack(planned(arrays, outside=(2,), note=1)[0].to_message()))


def with_table():
    return unpack(pack(planned([np.zeros(2)] * 9, outside=tuple(range(9)))[0].to_message()))


def changed(message, path, value):
    message = copy.deepcopy(message)
    into = message
    for step in path[:-1]:
        into = into[step]
    into[path[-1]] = value
    return message


NO_NUMBER = [-2, 2**39, 2**63, 2**64 - 1, 1.5, float("inf"), float("nan"), True, None, "7", b"7", [7], {}]
NAME, DTYPE, SHAPE, SIZE, OFFSET = range(5)
NO_SHAPE = [
    None,
    6,
    "23",
    {},
    [2, 3, 2],
    [2, -3],
    [2, 3.0],
    [True, 6],
    [2, "3"],
    [[2, 3]],
    [2**39, 1],
    [1] * 33 + [6],
]

MALFORMED = (
    [(("id",), value) for value in NO_NUMBER + [-1]]
    + [(("size",), value) for value in NO_NUMBER + [-1, 0, 64]]
    + [(("table",), value) for value in NO_NUMBER + [0, 64]]
    + [
        (("tensors",), value)
        for value in [None, 5, "abcde", [None], [5], ["abcde"], [[]], [["x", "<f4", [2], 8]], {"abcde": 1}]
    ]
    + [(("tensors", 0, NAME), value) for value in [None, 5, b"x", ["x"], {}]]
    + [(("tensors", 0, NAME), "tensor 1")]
    + [
        (("tensors", 0, DTYPE), value)
        for value in [None, 4, "", "f4", "<f8", "<f2", "|O", "#text", STRING, BYTES, ["<f2", [2]], {}]
    ]
    + [(("tensors", 0, SHAPE), value) for value in NO_SHAPE + [[2], [3, 3], [0, 3], []]]
    + [(("tensors", 0, SIZE), value) for value in NO_NUMBER + [-1, 0, 23, 25]]
    + [(("tensors", 0, OFFSET), value) for value in NO_NUMBER + [1, 4, 32, 1 << 20]]
    + [(("tensors", 1, SHAPE), value) for value in NO_SHAPE + [[9]]]
    + [(("tensors", 1, SIZE), value) for value in NO_NUMBER + [-1, 0, 8, 1 << 20]]
    + [(("tensors", 1, OFFSET), value) for value in NO_NUMBER + [-1, 1, 1 << 20]]
    + [(("tensors", 2, DTYPE), STRING)]
    # An empty array's other dimensions count as well: numpy multiplies them.
    + [(("tensors", 3, SHAPE), value) for value in [[0, 2**38, 2**38], [0] + [2**38] * 5]]
)


@pytest.mark.parametrize("path, value", MALFORMED, ids=repr)
def test_a_malformed_field_is_refused(path, value):
    Plan.from_message(a_message())
    with pytest.raises(ProtocolError):
        Plan.from_message(changed(a_message(), path, value))


@pytest.mark.parametrize("value", NO_NUMBER + [-1, 8, 64, 128, 1 << 20], ids=repr)
def test_a_malformed_table_is_refused(value):
    Plan.from_message(with_table())
    with pytest.raises(ProtocolError):
        Plan.from_message(changed(with_table(), ("table",), value))


@pytest.mark.parametrize("field", ["id", "tensors", "note", "size", "table"])
def test_a_missing_field_is_refused_and_named(field):
    message = a_message()
    del message[field]
    with pytest.raises(ProtocolError, match=field):
        Plan.from_message(message)


def test_a_refusal_names_the_tensor_and_the_field():
    with pytest.raises(ProtocolError, match="shape.*'tensor 0'"):
        Plan.from_message(changed(a_message(), ("tensors", 0, SHAPE), "23"))
    with pytest.raises(ProtocolError, match="'tensor 2' has 41 bytes"):
        Plan.from_message(changed(a_message(), ("tensors", 2, SIZE), 41))


@pytest.mark.parametrize("dtype", [["<f4", [1, 3]], ["<f4", [3]]], ids=repr)
def test_a_tensor_of_a_subarray_dtype_is_refused(dtype):
    # numpy would add its dimensions to the shape, behind the back of every check of the shape.
    message = changed(a_message(), ("tensors", 0, DTYPE), dtype)
    with pytest.raises(ProtocolError):
        Plan.from_message(changed(message, ("tensors", 0, SHAPE), [2]))


def test_an_empty_text_tensor_with_dimensions_past_all_memory_is_refused():
    message = changed(a_message(), ("tensors", 1, SHAPE), [0, 2**38, 2**23])
    try:
        plan = Plan.from_message(message)
    except ProtocolError:
        return
    view = plan.views(mapping(plan), START)[1]
    view[...] = 0
    assert plan.decode(1, view).shape == (0, 2**38, 2**23)


paths = st.sampled_from(
    [("id",), ("size",), ("table",), ("note",), ("tensors",)]
    + [("tensors", index) for index in range(4)]
    + [("tensors", index, field) for index in range(4) for field in range(5)]
    + [("tensors", 0, SHAPE, 1), ("tensors", 3, SHAPE, 0)]
)
wrong = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.sampled_from(["<f4", "|S0", "<U1", "|V0", STRING, BYTES, "x"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=400)
@given(st.lists(st.tuples(paths, wrong), min_size=1, max_size=3))
def test_a_plan_that_is_accepted_stays_inside_its_block(changes):
    message = a_message()
    for path, value in changes:
        try:
            message = changed(message, path, value)
        except (TypeError, KeyError, IndexError, AttributeError):  # an earlier change took that place away
            pass
    try:
        plan = Plan.from_message(message)
    except ProtocolError:
        return
    if plan.size > 1 << 20:
        return  # no segment of a test's has it, so its block would be refused
    map = mapping(plan)
    block = span(np.frombuffer(map, np.uint8)[START : START + plan.size])
    for view in plan.views(map, START):
        if view is not None:
            start, end = span(view)
            assert block[0] <= start and end <= block[1]
