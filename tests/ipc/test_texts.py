"""Arrays of Python texts and bytes come back element by element as they were, and offsets of the other side are not trusted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from opexec.ipc.faults import ProtocolError
from opexec.ipc.plan import text_capacities
from opexec.ipc.wire import ALIGNMENT, BYTES, STRING, decode_texts, encode_texts

# With lone surrogates and NUL.
texts = st.text(st.characters() | st.characters(whitelist_categories=["Cs"]) | st.just("\0"), max_size=9)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def text_arrays(draw, elements):
    shape = draw(shapes)
    array = np.empty(shape, object)
    for index in np.ndindex(*shape):
        array[index] = draw(elements)
    return array


def memory_of(offsets, payload, spare=0):
    """What a sender writes into a block, as the receiver gets it: a uint8 array, longer than the text needs."""
    return np.frombuffer(bytearray(offsets.tobytes() + payload + b"\xff" * spare), np.uint8)


def there_and_back(array, spare=0):
    kind, offsets, payload = encode_texts(array)
    assert offsets.dtype == np.uint64 and offsets.shape == (array.size + 1,)
    return decode_texts(kind, array.shape, array.size, memory_of(offsets, payload, spare))


@given(text_arrays(texts) | text_arrays(st.binary(max_size=9)), st.integers(0, 70))
def test_every_element_comes_back(array, spare):
    came = there_and_back(array, spare)
    assert came.dtype == object and came.shape == array.shape
    assert came.tolist() == array.tolist()
    assert {*map(type, came.ravel())} == {*map(type, array.ravel())}


@pytest.mark.parametrize(
    "array",
    [
        np.array([["a", "\ud800"], ["", "\0b\0"]], object),
        np.array([b"\0\0", b"", b"\xff\xfe"], object),
        np.array("one of rank 0", object),
        np.empty((3, 0, 2), object),
        np.array([["a", "bb"], ["ccc", "d"]], object).T,
        np.array(["a", "bb", "ccc", "d"], object)[::-2],
        np.array([np.str_("numpy's own"), "é€😀"], object),
    ],
    ids=repr,
)
def test_rank_order_and_trailing_nul_are_kept(array):
    came = there_and_back(array)
    assert came.shape == array.shape and came.tolist() == array.tolist()


if hasattr(np, "dtypes") and hasattr(np.dtypes, "StringDType"):

    def test_numpys_strings_of_varying_length():
        array = np.array([["a", ""], ["long " * 9, "é\0"]], np.dtypes.StringDType())
        assert there_and_back(array).tolist() == array.tolist()

    def test_a_missing_string_is_refused():
        array = np.array(["a", None], np.dtypes.StringDType(na_object=None))
        with pytest.raises(TypeError, match="element 1 is of type NoneType"):
            encode_texts(array)


@pytest.mark.parametrize(
    "elements, which",
    [
        (["a", b"b"], "element 1 is of type bytes, expected str"),
        ([b"a", "b"], "element 1 is of type str, expected bytes"),
        (["a", "b", 3], "element 2 is of type int"),
        ([None], "element 0 is of type NoneType"),
        ([bytearray(b"a")], "element 0 is of type bytearray"),
        ([["a", "b"]], "element 0 is of type list"),
    ],
)
def test_what_is_neither_text_nor_bytes_is_named(elements, which):
    array = np.empty(len(elements), object)
    array[:] = elements
    with pytest.raises(TypeError, match=which):
        encode_texts(array)


@given(st.lists(st.lists(texts, max_size=5), min_size=1, max_size=4))
def test_a_capacity_holds_what_is_encoded(rows):
    arrays = [np.array([0.0])]
    for row in rows:
        arrays.append(np.empty(len(row), object))
        arrays[-1][:] = row
    encoded, capacities = text_capacities(arrays)
    assert sorted(encoded) == sorted(capacities) == list(range(1, len(arrays)))
    for index, (kind, capacity) in capacities.items():
        _, offsets, payload = encoded[index]
        assert kind == STRING
        assert offsets.nbytes + len(payload) <= capacity
        assert capacity >= ALIGNMENT and capacity & (capacity - 1) == 0, (
            "not a power of two: plans would not be shared"
        )


# What the other side wrote


@given(
    st.sampled_from([STRING, BYTES]),
    st.lists(st.integers(0, 40) | st.integers(0, 2**64 - 1), min_size=1, max_size=6),
    st.binary(max_size=32),
)
def test_any_offsets_give_texts_or_one_kind_of_error(kind, offsets, payload):
    count = len(offsets) - 1
    try:
        came = decode_texts(kind, (count,), count, memory_of(np.array(offsets, np.uint64), payload))
    except ProtocolError:
        return
    assert offsets == sorted(offsets) and offsets[0] == 0 and offsets[-1] <= len(payload)
    for element, start, end in zip(came, offsets, offsets[1:]):
        piece = element if kind == BYTES else element.encode("utf-8", "surrogatepass")
        assert piece == payload[start:end]


@pytest.mark.parametrize(
    "offsets, payload, says",
    [
        ([1, 2], b"ab", "order"),
        ([0, 2, 1, 3], b"abc", "order"),
        ([0, 4], b"abc", "past the 3 bytes"),
        ([0, 2**64 - 1], b"abc", "past the 3 bytes"),
        ([0, 2**63, 3], b"abc", "order"),
        ([0, 1], b"\xff", "UTF-8"),
        ([0, 1, 2], "é".encode(), "UTF-8"),
    ],
)
def test_bad_offsets_and_bad_text_are_refused(offsets, payload, says):
    with pytest.raises(ProtocolError, match=says):
        decode_texts(
            STRING, (len(offsets) - 1,), len(offsets) - 1, memory_of(np.array(offsets, np.uint64), payload)
        )


def test_texts_outlive_the_memory_they_came_in():
    memory = memory_of(*encode_texts(np.array(["first", "second"], object))[1:])
    came = decode_texts(STRING, (2,), 2, memory)
    memory[:] = 0
    assert came.tolist() == ["first", "second"]
