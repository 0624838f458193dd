"""A dtype arrives as it was sent, in the machine's byte order; what describes none is refused by one kind of error."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opexec.ipc import wire
from opexec.ipc.faults import ProtocolError
from opexec.ipc.packing import pack, unpack

try:
    import ml_dtypes
except ImportError:  # none for Python 3.7
    ml_dtypes = None

NUMBERS = [
    "?",
    "i1",
    "i2",
    "i4",
    "i8",
    "u1",
    "u2",
    "u4",
    "u8",
    "f2",
    "f4",
    "f8",
    "c8",
    "c16",
    "longdouble",
    "clongdouble",
]
UNITS = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"]

plain_dtypes = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(["M8", "m8"]),  # of no unit
    st.builds("{}8[{}{}]".format, st.sampled_from("Mm"), st.integers(1, 50), st.sampled_from(UNITS)),
    st.builds("{}{}".format, st.sampled_from("SUV"), st.integers(0, 40)),
).map(np.dtype)
any_order = st.builds(np.dtype.newbyteorder, plain_dtypes, st.sampled_from("<>="))
field_names = st.lists(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=4), max_size=4, unique=True
)


@st.composite
def structures(draw, inner):
    """Fields in any order of their offsets, with gaps and padding, some of them subarrays."""
    names = draw(
        field_names.filter(lambda names: "" not in names)
    )  # numpy itself renames a field without a name
    formats, offsets, end = [], [], 0
    for _ in names:
        field = draw(inner)
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        formats.append(np.dtype((field, tuple(shape))) if shape else field)
        offsets.append(end + draw(st.integers(0, 9)))
        end = offsets[-1] + formats[-1].itemsize
    placed = draw(st.permutations(list(zip(formats, offsets))))
    return np.dtype(
        {
            "names": names,
            "formats": [format for format, _ in placed],
            "offsets": [offset for _, offset in placed],
            "itemsize": end + draw(st.integers(0, 5)),
        }
    )


dtypes = st.recursive(any_order, structures, max_leaves=6)


def over_the_wire(dtype):
    return wire.build_dtype(unpack(pack({"dtype": wire.describe_dtype(dtype)}))["dtype"])


@given(dtypes)
def test_a_dtype_comes_back_in_native_order(dtype):
    came = over_the_wire(dtype)
    assert came == dtype.newbyteorder("=") and came.itemsize == dtype.itemsize
    assert came.isnative or came.itemsize == 0
    assert over_the_wire(came) == came


@given(dtypes, st.data())
def test_values_survive_the_change_of_dtype(dtype, data):
    size = 3 * dtype.itemsize
    sent = np.ndarray((3,), dtype, bytearray(data.draw(st.binary(min_size=size, max_size=size))))
    came = np.ndarray((3,), over_the_wire(dtype), bytearray(size))
    came[...] = sent
    assert values(came) == values(sent)


def values(array):
    """The bytes of every element in native order, without the padding."""
    if array.dtype.names is not None:
        return [values(array[name]) for name in array.dtype.names]
    return (array if array.dtype.isnative else array.byteswap()).tobytes()


def test_structures_that_are_aligned_nested_overlapping_or_empty():
    for dtype in (
        np.dtype([("a", "i1"), ("b", "f8"), ("c", "i2", (2, 3))], align=True),
        np.dtype([("outer", [("inner", ">U3"), ("when", "M8[10ms]")]), ("raw", "V3")]),
        np.dtype({"names": ["whole", "half"], "formats": ["u4", "u2"], "offsets": [0, 2], "itemsize": 4}),
        np.dtype([]),
    ):
        assert over_the_wire(dtype) == dtype.newbyteorder("=")


@pytest.mark.parametrize(
    "array",
    [
        np.array([""]),
        np.array([b""]),
        np.zeros(3, "S0"),
        np.zeros(3, "U0"),
        np.zeros(2, [("empty", "U0"), ("void", "V0")])["empty"],
        np.zeros(2, [("empty", "S0")]),
        np.array([], str),
    ],
    ids=repr,
)
def test_arrays_of_empty_strings_keep_their_dtype(array):
    assert over_the_wire(array.dtype) == array.dtype


@pytest.mark.parametrize(
    "dtype", ["O", [("a", "O")], [("a", [("b", "f4"), ("c", "O")])], [("a", "O", (2,))]], ids=repr
)
def test_python_objects_are_refused_and_named(dtype):
    with pytest.raises(TypeError, match="Python objects"):
        wire.describe_dtype(np.dtype(dtype))


# Kinds that ml_dtypes adds


@pytest.fixture
def without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)


@pytest.mark.parametrize("name", sorted(wire.EXTENSIONS))
def test_extension_kinds_as_bit_patterns(name, without_ml_dtypes):
    dtype = wire.extension_dtype(name)
    assert dtype.itemsize == wire.EXTENSIONS[name]
    assert wire.extension_name(dtype) == name
    assert wire.describe_dtype(dtype) == "@" + name
    assert over_the_wire(dtype) == dtype
    in_a_structure = np.dtype([("x", "i4"), ("y", dtype, (2,))])
    assert over_the_wire(in_a_structure) == in_a_structure


if ml_dtypes is not None:

    @pytest.mark.parametrize("name", sorted(name for name in wire.EXTENSIONS if hasattr(ml_dtypes, name)))
    def test_extension_kinds_of_ml_dtypes(name, monkeypatch):
        theirs = np.dtype(getattr(ml_dtypes, name))
        assert theirs.itemsize == wire.EXTENSIONS[name]
        assert wire.extension_name(theirs) == name
        assert over_the_wire(theirs) == theirs
        in_a_structure = np.dtype([("x", "i4"), ("y", theirs, (2,))])
        assert over_the_wire(in_a_structure) == in_a_structure

        # What one side sends with ml_dtypes, the other reads without, and the bits are the same.
        described = wire.describe_dtype(theirs)
        bits = np.arange(8).astype("u{}".format(theirs.itemsize))
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        patterns = wire.build_dtype(described)
        assert wire.describe_dtype(patterns) == described
        assert bits.view(theirs).tobytes() == bits.view(patterns).tobytes()

    def test_a_kind_of_ml_dtypes_travels_as_it_is_or_not_at_all():
        kinds = [
            kind
            for kind in vars(ml_dtypes).values()
            if isinstance(kind, type) and issubclass(kind, np.generic)
        ]
        assert len(kinds) >= len(wire.EXTENSIONS) / 2
        for theirs in map(np.dtype, kinds):
            try:
                assert over_the_wire(theirs) == theirs
            except TypeError as refused:
                assert theirs.name in str(refused)


@pytest.mark.parametrize(
    "dtype", ["i2", "f2", "u1", "V2", [("bfloat16", "u2")], [("opexec.nothing", "u2")]], ids=repr
)
def test_no_other_dtype_is_taken_for_an_extension_kind(dtype):
    assert wire.extension_name(np.dtype(dtype)) is None


@pytest.mark.parametrize(
    "dtype", [[("opexec.bfloat16", "f8")], [("opexec.float8_e5m2", "u1", (3,))]], ids=repr
)
def test_a_structure_of_another_size_is_no_extension_kind(dtype):
    assert over_the_wire(np.dtype(dtype)) == np.dtype(dtype)


# What is no dtype

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=6)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        | st.fixed_dictionaries(
            {
                "names": inner | st.lists(st.text(max_size=2), max_size=2),
                "formats": inner | st.lists(st.sampled_from(["<f4", "|S0", "<U-1"]) | inner, max_size=2),
                "offsets": inner | st.lists(st.integers(-(2**64), 2**64) | inner, max_size=2),
                "itemsize": st.integers(-9, 99) | inner,
            }
        )
        | st.tuples(
            st.sampled_from(["<f4", "|V8"]), inner | st.lists(st.integers(-1, 2**40), max_size=3)
        ).map(list)
    ),
    max_leaves=8,
)


@given(anything)
def test_whatever_came_gives_a_sound_dtype_or_one_kind_of_error(description):
    try:
        dtype = wire.build_dtype(description)
    except ProtocolError:
        return
    assert isinstance(dtype, np.dtype) and not dtype.hasobject and dtype.itemsize >= 0
    assert wire.build_dtype(wire.describe_dtype(dtype)) == dtype


@pytest.mark.parametrize(
    "description",
    [
        ">f4" if sys.byteorder == "little" else "<f4",
        "f4",
        "float32",
        "",
        "|O",
        "O",
        "T",
        "f4,f4",
        "(2,)f4",
        "<U-1",
        "|V-5",
        "<M8[0s]",
        "<M8[-1s]",
        "<U99999999999",
        "\udcff",
        "i4\0",
        "@",
        "@float32",
        "@opexec.bfloat16",
        "#string",
        "#bytes",
        None,
        4,
        b"<f4",
        [],
        ["<f4"],
        ["<f4", 3],
        ["<f4", [-1]],
        ["<f4", [2**31]],
        ["<f4", [2**16, 2**16]],
        ["<f4", [2**64]],
        ["<f4", [1.5]],
        ["|O", [2]],
        {},
        {"names": ["a"], "formats": ["<f4"], "offsets": [0]},
        {"names": ["a", "a"], "formats": ["<f4", "<f4"], "offsets": [0, 4], "itemsize": 8},
        {"names": ["a"], "formats": ["<f4"], "offsets": [-4], "itemsize": 8},
        {"names": ["a"], "formats": ["<f4"], "offsets": [5], "itemsize": 8},
        {"names": ["a"], "formats": ["<f4"], "offsets": [2**31], "itemsize": 2**31 + 4},
        {"names": ["a"], "formats": ["<f4"], "offsets": [2**63], "itemsize": 4},
        {"names": ["a"], "formats": ["<f4"], "offsets": [0], "itemsize": 2**64 - 1},
        {"names": ["a"], "formats": ["<f4"], "offsets": [0], "itemsize": -4},
        {"names": ["a"], "formats": ["|O"], "offsets": [0], "itemsize": 8},
        {"names": ["a"], "formats": ["<U-1"], "offsets": [0], "itemsize": 8},
        {"names": [5], "formats": ["<f4"], "offsets": [0], "itemsize": 4},
        {"names": ["a", "b"], "formats": ["<f4"], "offsets": [0], "itemsize": 4},
    ],
    ids=repr,
)
def test_what_is_no_dtype_is_refused(description):
    with pytest.raises(ProtocolError, match="dtype"):
        wire.build_dtype(description)


@pytest.mark.parametrize("kind", ["subarray", "structure"])
def test_nesting_without_end_is_no_other_error(kind):
    description = "<f4"
    for _ in range(500):
        if kind == "subarray":
            description = [description, [1]]
        else:
            description = {"names": ["a"], "formats": [description], "offsets": [0], "itemsize": 4}
    try:
        assert wire.build_dtype(description).itemsize == 4
    except ProtocolError as refused:
        assert "dtype" in str(refused)
