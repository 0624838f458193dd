"""What may be passed as a tensor becomes a numpy array over the same memory, or a clear error; and never quietly another value."""

from __future__ import annotations

import array
import ctypes
import datetime
import gc
import subprocess
import sys
import weakref

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opexec.calling.arrays import kind_of, to_numpy
from opexec.errors import SpecError
from opexec.ipc import wire
from opexec.spec import TensorSpec


def spec(dtype):
    return TensorSpec("x", dtype, None)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# ---- arrays


def test_a_numpy_array_is_taken_as_it_is():
    for given_array in (
        np.zeros((2, 3)),
        np.zeros((2, 3)).T[::-1],
        np.array(3),
        np.zeros(2, ">f4"),
        np.array(["a", None], object),
    ):
        assert to_numpy(given_array, None, "x") is given_array
        assert (
            to_numpy(given_array, spec("uint8"), "x") is given_array
        )  # whether it fits is checked elsewhere


@pytest.mark.parametrize("subclass", [np.matrix, np.recarray, np.memmap])
def test_subclasses_become_plain_views(subclass):
    given_array = np.arange(6.0).reshape(2, 3).view(subclass)
    taken = to_numpy(given_array, None, "x")
    assert type(taken) is np.ndarray and same(taken, given_array) and np.shares_memory(taken, given_array)


def test_masked_arrays_are_refused():
    with pytest.raises(
        SpecError, match=r"input 'x' is of type numpy\.ma\.(core\.)?MaskedArray: .*\.filled\(value\)"
    ):
        to_numpy(np.ma.array([1, 2], mask=[0, 1]), None, "x")


@pytest.mark.parametrize(
    "scalar", [np.float32(1.5), np.int8(-1), np.bool_(True), np.datetime64("2020-01-01"), np.str_("é")]
)
def test_a_numpy_scalar_keeps_its_dtype(scalar):
    taken = to_numpy(scalar, spec("float64"), "x")
    assert taken.shape == () and taken[()] == scalar
    assert taken.dtype == (object if isinstance(scalar, str) else scalar.dtype)


@pytest.mark.parametrize(
    "buffer, expected",
    [
        (bytearray(b"abc"), np.frombuffer(b"abc", np.uint8)),
        (memoryview(b"abc"), np.frombuffer(b"abc", np.uint8)),
        (array.array("d", [1, 2]), np.array([1.0, 2.0])),
        ((ctypes.c_int16 * 2)(3, 4), np.array([3, 4], np.int16)),
        (memoryview(np.arange(6, dtype="f4").reshape(2, 3))[::2], np.array([[0, 1, 2]], "f4")),
    ],
)
def test_buffers(buffer, expected):
    taken = to_numpy(buffer, None, "x")
    assert same(taken, expected)
    assert np.shares_memory(taken, np.asarray(memoryview(buffer)))


class WithArray:
    def __init__(self, held):
        self.held = held

    def __array__(self, dtype=None, copy=None):
        return self.held


class WithInterface:
    def __init__(self, held):
        self.held = held
        self.__array_interface__ = held.__array_interface__


class WithDlpack:
    def __init__(self, held, device=None):
        self.held, self.device = held, device

    def __dlpack__(self, **options):
        return self.held.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device or self.held.__dlpack_device__()


class Scattered(WithArray):
    """An array over several devices, that can still be brought to the host."""

    def __dlpack_device__(self):
        raise ValueError("on two devices")


class Failing:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("the device is gone")


@pytest.mark.parametrize("kind", [WithArray, WithInterface, WithDlpack, Scattered])
def test_arrays_of_other_libraries_share_their_memory(kind):
    held = np.arange(6.0).reshape(2, 3)
    taken = to_numpy(kind(held), None, "x")
    assert type(taken) is np.ndarray and same(taken, held) and np.shares_memory(taken, held)


@pytest.mark.parametrize(
    "value, message",
    [
        (WithDlpack(np.zeros(2), (2, 1)), "lies on a device .*type 2, number 1.*copy it to the host"),
        (WithDlpack(np.zeros(2, ml_dtypes.bfloat16)), "is of type .*WithDlpack: numpy cannot read it"),
        (Failing(), "is of type .*Failing: numpy cannot read it: RuntimeError: the device is gone"),
    ],
)
def test_arrays_that_cannot_be_read_say_why(value, message):
    with pytest.raises(SpecError, match=f"input 'x' {message}"):
        to_numpy(value, None, "x")


@pytest.mark.parametrize(
    "value", [None, {"a": 1}, {1, 2}, object(), range(3), len, np.ndarray, (i for i in "ab"), ...]
)
def test_what_is_no_array_is_named(value):
    with pytest.raises(SpecError) as caught:
        to_numpy(value, spec("float32"), "image")
    message = str(caught.value)
    assert message.startswith("input 'image' is of type ") and type(value).__name__ in message
    assert "which is no array; expected a numpy array, a torch tensor" in message


# ---- Python's own values


@pytest.mark.parametrize(
    "value, dtype, expected",
    [
        (3, "uint8", np.array(3, np.uint8)),
        (255, "uint8", np.array(255, np.uint8)),
        (-(2**63), "int64", np.array(-(2**63), np.int64)),
        (2**64 - 1, "uint64", np.array(2**64 - 1, np.uint64)),
        ([2**63, 0], "uint64", np.array([2**63, 0], np.uint64)),
        (True, "int32", np.array(1, np.int32)),
        ([1, True, np.uint8(7)], "int16", np.array([1, 1, 7], np.int16)),
        (True, "bool", np.array(True)),
        ([[1, 2], [3, 4.5]], "float32", np.array([[1, 2], [3, 4.5]], np.float32)),
        (((1,), (2,)), "float64", np.array([[1.0], [2.0]])),
        ([1.1, np.float64(2.2)], "float16", np.array([1.1, 2.2], np.float16)),
        ([float("inf"), float("nan"), -0.0], "float32", np.array([np.inf, np.nan, -0.0], np.float32)),
        (3.4028235e38, "float32", np.array(3.4028235e38, np.float32)),
        ([1, 2j], "complex64", np.array([1, 2j], np.complex64)),
        ([], "float32", np.zeros(0, np.float32)),
        ([[], []], "int8", np.zeros((2, 0), np.int8)),
        (1.5, "bfloat16", np.array(1.5, ml_dtypes.bfloat16)),
        (float("nan"), "float8_e4m3fn", np.array(np.nan, ml_dtypes.float8_e4m3fn)),
        ([448, -448.0], "float8_e4m3fn", np.array([448, -448], ml_dtypes.float8_e4m3fn)),
        ([-8, 7], "int4", np.array([-8, 7], ml_dtypes.int4)),
        (datetime.date(2020, 2, 29), "datetime64[D]", np.array("2020-02-29", "M8[D]")),
        (datetime.datetime(2020, 1, 1, 5), "datetime64[ns]", np.array("2020-01-01T05", "M8[ns]")),
        ([np.datetime64("NaT"), np.datetime64("2020")], "datetime64[s]", np.array(["NaT", "2020"], "M8[s]")),
        (datetime.timedelta(days=1), "timedelta64[h]", np.array(24, "m8[h]")),
    ],
)
def test_python_values_take_the_dtype_of_the_spec(value, dtype, expected):
    assert same(to_numpy(value, spec(dtype), "x"), expected)


def test_a_long_double_keeps_the_digits_that_a_float_has_not():
    taken = to_numpy([2**63 + 1], spec(np.longdouble), "x")
    assert taken.dtype == np.longdouble and int(taken[0]) == int(np.longdouble(2**63) + 1)


@pytest.mark.parametrize(
    "value, dtype, shape",
    [
        ("a\0", "string", ()),
        ([["é", ""], ["c", "d\0"]], "string", (2, 2)),
        (b"a\0", "bytes", ()),
        ([b"a", b""], "bytes", (2,)),
    ],
)
def test_texts_and_bytes_keep_every_character(value, dtype, shape):
    taken = to_numpy(value, spec(dtype), "x")
    assert taken.shape == shape and taken.dtype == object and taken.tolist() == value


@pytest.mark.parametrize(
    "value, dtype, message",
    [
        (300, "uint8", r"input 'x' is 300, which uint8 cannot hold \(0 to 255\)"),
        ([[1], [-1]], "uint8", r"input 'x': element \[1\]\[0\] is -1, which uint8 cannot hold"),
        (2**63, "int64", "which int64 cannot hold"),
        (2**64, "uint64", "which uint64 cannot hold"),
        (8, "int4", r"which int4 cannot hold \(-8 to 7\)"),
        (1.0, "int32", "is 1.0 of type float, which is no value for the dtype int32"),
        (1, "bool", "is 1 of type int, which is no value for the dtype bool"),
        ("3", "float32", "is '3' of type str, which is no value for the dtype float32"),
        ([1, None], "float32", r"element \[1\] is None of type NoneType"),
        (1j, "float64", "is 1j of type complex"),
        (1e39, "float32", "is 1e[+]39, which float32 cannot hold"),
        (70000, "float16", "is 70000, which float16 cannot hold"),
        (10**400, "float64", "cannot become an array of float64: int too large"),
        (1e39j, "complex64", "which complex64 cannot hold"),
        ([1, 1e39], "bfloat16", r"element \[1\] is 1e[+]39, which bfloat16 cannot hold"),
        (500, "float8_e4m3fn", "is 500, which float8_e4m3fn cannot hold"),
        (float("inf"), "float8_e4m3fn", "is inf, which float8_e4m3fn cannot hold"),
        (float("nan"), "float4_e2m1fn", "is nan, which float4_e2m1fn cannot hold"),
        (8.0, "float4_e2m1fn", "is 8.0, which float4_e2m1fn cannot hold"),
        (-1.0, "float8_e8m0fnu", "is -1.0, which float8_e8m0fnu cannot hold"),
        (
            ["a", b"b"],
            "string",
            r"element \[1\] is b'b' of type bytes, which is no value for the dtype string",
        ),
        ("a", "bytes", "is 'a' of type str, which is no value for the dtype bytes"),
        ([[1, 2], [3]], "int8", "is a ragged list: at depth 1 lie 1 items, 2 items side by side"),
        ([1, [2]], "int8", "is a ragged list: at depth 1 lie a single value, 1 items side by side"),
        (
            [np.zeros(2)],
            "float64",
            r"element \[0\] is array.* of type numpy.ndarray.*; join arrays with np.stack",
        ),
        ((1, 2.0), [("a", "i4"), ("b", "f4")], "Python values cannot become .*; pass a numpy array"),
        (b"abc", "V3", "Python values cannot become V3"),
        (datetime.datetime(9999, 1, 1), "datetime64[ns]", "which datetime64.ns. cannot hold"),
        (datetime.datetime(2020, 1, 1, 5), "datetime64[D]", "which datetime64.D. cannot hold"),
        (datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), "datetime64[s]", "no time zone"),
        ([np.timedelta64(1, "Y")], "timedelta64[s]", "cannot become an array of timedelta64.s."),
        (1, "datetime64[s]", "is 1 of type int"),
    ],
)
def test_python_values_that_do_not_fit_are_refused(value, dtype, message):
    with pytest.raises(SpecError, match=message):
        to_numpy(value, spec(dtype), "x")


def test_without_a_spec_a_python_value_has_no_dtype():
    for value in (1, 1.5, True, "a", b"a", [1], (1, 2)):
        with pytest.raises(
            SpecError, match=f"input 'x' is of type {type(value).__name__}, and no spec gives its dtype"
        ):
            to_numpy(value, None, "x")


def test_a_list_that_holds_itself_is_refused():
    cycle = []
    cycle.append(cycle)
    with pytest.raises(SpecError, match="nested more than 32 levels"):
        to_numpy(cycle, spec("int8"), "x")


def test_a_long_value_is_not_shown_whole():
    with pytest.raises(SpecError) as caught:
        to_numpy("a" * 10_000, spec("int8"), "x")
    assert len(str(caught.value)) < 300


def test_without_ml_dtypes_its_kinds_take_arrays_alone():
    program = """
import sys
sys.modules["ml_dtypes"] = None
import numpy as np
from opexec.calling.arrays import to_numpy
from opexec.errors import SpecError
from opexec.spec import TensorSpec
spec = TensorSpec("x", "bfloat16", ())
bits = np.zeros((), spec.numpy_dtype)
assert to_numpy(bits, spec, "x") is bits
try:
    to_numpy(1.5, spec, "x")
except SpecError as error:
    assert "only where the package ml_dtypes is installed" in str(error), error
else:
    raise AssertionError("a number became bits that nobody can compute")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@st.composite
def nested_lists(draw, elements):
    """Nested lists, and the shape they have."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))

    def build(sizes):
        return [build(sizes[1:]) for _ in range(sizes[0])] if sizes else draw(elements)

    value = build(shape)
    # What lies behind an empty list cannot be seen.
    return value, tuple(shape[: shape.index(0) + 1] if 0 in shape else shape)


@given(nested_lists(st.integers(-(2**65), 2**65)), st.sampled_from(["u1", "i1", "u2", "i4", "i8", "u8"]))
def test_integers_come_out_as_they_went_in_or_not_at_all(nested, dtype):
    value, shape = nested
    try:
        taken = to_numpy(value, spec(dtype), "x")
    except SpecError as error:
        assert "cannot hold" in str(error)
        limits = np.iinfo(dtype)
        assert any(not limits.min <= one <= limits.max for one in flat(value))
    else:
        assert taken.shape == shape and taken.dtype == dtype and flat(taken.tolist()) == flat(value)


def flat(value):
    return [one for item in value for one in flat(item)] if isinstance(value, list) else [value]


FLOATS = [
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float6_e2m3fn",
]


@given(nested_lists(st.floats()), st.sampled_from(FLOATS))
def test_floats_are_rounded_and_never_overflow(nested, dtype):
    value, shape = nested
    try:
        taken = to_numpy(value, spec(dtype), "x")
    except SpecError as error:
        assert "cannot hold" in str(error)
        return
    assert taken.shape == shape and taken.dtype == spec(dtype).numpy_dtype
    for before, after in zip(flat(value), flat(taken.astype(np.float64).tolist()), strict=True):
        limits = ml_dtypes.finfo(taken.dtype)
        if not np.isfinite(before):
            assert repr(before) == repr(after) or np.isnan(before) and np.isnan(after)
        else:
            assert abs(after - before) <= max(
                abs(before) * float(limits.eps), float(limits.smallest_subnormal)
            )


@given(nested_lists(st.text()))
def test_texts_come_out_as_they_went_in(nested):
    value, shape = nested
    taken = to_numpy(value, spec("string"), "x")
    assert taken.shape == shape and flat(taken.tolist()) == flat(value)


# ---- torch, and kinds of array


def test_no_framework_is_imported():
    program = """
import sys
import numpy as np
from opexec.calling.arrays import kind_of, to_numpy
from opexec.spec import TensorSpec
to_numpy([1], TensorSpec("x", "int8", None), "x")
assert kind_of([np.zeros(2)]) is None
assert not {"torch", "tensorflow", "jax", "cupy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_numpy_arrays_and_python_values_are_of_no_other_kind():
    assert (
        kind_of([]) is kind_of([np.zeros(2)]) is kind_of([1, [2]]) is kind_of(iter([np.zeros(2), 3])) is None
    )


EXACT = "bool uint8 int8 int16 int32 int64 float16 float32 float64 complex64 complex128".split()
BITS = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]


@pytest.mark.torch
@pytest.mark.parametrize("dtype", EXACT + BITS)
def test_torch_tensors_share_their_memory_both_ways(dtype):
    import torch

    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)).T
    taken = to_numpy(tensor, None, "x")
    assert taken.dtype == spec(dtype).numpy_dtype and taken.shape == (3, 2)
    assert taken.ctypes.data == tensor.data_ptr()
    assert taken.astype(np.complex128).tolist() == tensor.to(torch.complex128).tolist()

    kind = kind_of([tensor, tensor])
    assert kind.name == "torch"
    for given_array in (taken, np.ascontiguousarray(taken), taken[:0], taken[:1, :1].reshape(())):
        back = kind.from_numpy(given_array)
        assert back.dtype == tensor.dtype and tuple(back.shape) == given_array.shape
        assert back.data_ptr() == given_array.ctypes.data or not given_array.size


@pytest.mark.torch
def test_a_torch_tensor_keeps_the_memory_of_its_array_alive():
    import torch

    class Owner:
        def __init__(self):
            self.memory = bytearray(8)

        @property
        def __array_interface__(self):
            return {**np.frombuffer(self.memory, np.uint8).__array_interface__, "version": 3}

    kind = kind_of([torch.zeros(1)])
    for dtype in ("u1", "f4", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2):
        owner = Owner()
        gone = weakref.ref(owner)
        tensor = kind.from_numpy(np.asarray(owner).view(dtype))
        del owner
        derived = tensor[1:]
        del tensor
        gc.collect()
        assert gone() is not None
        del derived
        gc.collect()
        assert gone() is None


@pytest.mark.torch
def test_torch_tensors_that_need_more_than_a_view():
    import torch

    assert same(to_numpy(torch.ones(2, requires_grad=True), None, "x"), np.ones(2, np.float32))
    assert same(to_numpy(torch.nn.Parameter(torch.ones(2)), None, "x"), np.ones(2, np.float32))
    assert to_numpy(torch.tensor([1j]).conj(), None, "x").tolist() == [-1j]
    assert to_numpy(torch.tensor([1j]).conj().imag, None, "x").tolist() == [-1]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # torch's own, about kinds of tensor that it no longer likes
def test_torch_tensors_that_numpy_cannot_have():
    import torch

    for make, message in [
        (
            lambda: torch.zeros(2, device="meta"),
            "input 'x' lies on the device 'meta', not in host memory; pass tensor.cpu",
        ),
        (lambda: torch.eye(2).to_sparse(), "is of type torch.Tensor: a sparse tensor .*to_dense"),
        (lambda: torch.zeros(2, dtype=torch.complex32), "torch cannot give torch.complex32 on cpu to numpy"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
            "torch cannot give torch.quint8",
        ),
    ]:
        with pytest.raises(SpecError, match=message):
            to_numpy(make(), None, "x")
    with pytest.raises(SpecError, match=r"element \[0\] is tensor.*join arrays with np.stack"):
        to_numpy([torch.zeros(2)], spec("float32"), "x")


@pytest.mark.torch
def test_what_torch_has_no_dtype_for_stays_numpys():
    import torch

    kind = kind_of([torch.zeros(1)])
    for dtype in (
        "U3",
        "S3",
        "O",
        "M8[s]",
        "m8[s]",
        "g",
        "V3",
        [("a", "i4")],
        wire.extension_dtype("int4"),
        "G",
    ):
        given_array = np.zeros(2, dtype)
        assert kind.from_numpy(given_array) is given_array
    assert kind_of([torch.zeros(1), np.zeros(1)]) is None
    assert kind_of([torch.zeros(1), 3]) is None
