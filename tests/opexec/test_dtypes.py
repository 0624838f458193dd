"""A dtype has one name however it is written, and the name stands for that dtype alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from opexec.dtypes import canonical_dtype
from opexec.errors import SpecError
from opexec.ipc import wire
from opexec.spec import TensorSpec


@pytest.mark.parametrize(
    "given_dtype, name",
    [
        ("double", "float64"),
        ("float", "float64"),
        (float, "float64"),
        ("single", "float32"),
        ("half", "float16"),
        ("int", "int64"),
        (int, "int64"),
        ("byte", "int8"),
        (bool, "bool"),
        (np.bool_, "bool"),
        (complex, "complex128"),
        (np.float32, "float32"),
        (np.dtype(">i4"), "int32"),
        (">f8", "float64"),
        ("<u2", "uint16"),
        (np.longlong, "int64"),
        ("datetime64[ns]", "datetime64[ns]"),
        (">M8[25s]", "datetime64[25s]"),
        ("m8[D]", "timedelta64[D]"),
        ("string", "string"),
        ("str", "string"),
        (str, "string"),
        (np.str_, "string"),
        ("U8", "string"),
        (">U8", "string"),
        ("bytes", "bytes"),
        (bytes, "bytes"),
        ("S5", "bytes"),
        ("bfloat16", "bfloat16"),
        ("V16", "V16"),
        (np.dtype("V3"), "V3"),
        ([("id", "i4"), ("at", ">f8", (2,))], "[('id', '<i4'), ('at', '<f8', (2,))]"),
        ("u1,f4", "[('f0', 'u1'), ('f1', '<f4')]"),
    ],
)
def test_a_dtype_has_one_name(given_dtype, name):
    assert TensorSpec("x", given_dtype, ()).dtype == name


@pytest.mark.skipif(
    not hasattr(np, "dtypes") or not hasattr(np.dtypes, "StringDType"), reason="needs numpy 2"
)
def test_numpys_own_string_dtype_is_text():
    assert canonical_dtype(np.dtypes.StringDType()) == canonical_dtype(np.dtypes.StringDType) == "string"
    assert canonical_dtype(np.dtypes.Float32DType) == "float32"
    assert TensorSpec("x", "string", ()).accepts(np.dtypes.StringDType())


@pytest.mark.parametrize("name", sorted(wire.EXTENSIONS))
def test_the_kinds_of_ml_dtypes(name):
    spec = TensorSpec("x", name, ("n",))
    assert (
        spec.dtype == name == canonical_dtype(wire.extension_dtype(name)) == canonical_dtype(spec.numpy_dtype)
    )
    assert spec.accepts(wire.extension_dtype(name))
    assert not spec.accepts(np.dtype(f"u{wire.EXTENSIONS[name]}"))


def test_the_kinds_of_ml_dtypes_without_that_package():
    program = """
import sys
sys.modules["ml_dtypes"] = None
from opexec.spec import TensorSpec
spec = TensorSpec("x", "bfloat16", ("n",))
assert spec.dtype == "bfloat16" and spec.numpy_dtype.names and spec.numpy_dtype.itemsize == 2
assert spec.accepts(spec.numpy_dtype) and TensorSpec("x", spec.numpy_dtype, ("n",)) == spec
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "given_dtype, message",
    [
        (None, "expected a dtype .*, got None"),
        ("flaot32", "got 'flaot32'; did you mean 'float32'?"),
        ("Float64", "did you mean 'float64'?"),
        ("text", "expected a dtype"),
        ("[('a', 'i4'", "expected a dtype"),
        ("[" * 10_000, "expected a dtype"),
        (3, "expected a dtype"),
        (object(), "expected a dtype"),
        (np.dtype, "expected a dtype"),
        ("object", 'holds Python objects cannot travel; use "string" or "bytes"'),
        ([("a", "O")], "holds Python objects"),
        ("(2,3)f4", r"use dtype 'float32', and put \(2, 3\) into the shape"),
        ("datetime64", r'needs a unit: "datetime64\[ns\]"'),
        ("V", "no size"),
        ([(("title", "a"), "i4")], "cannot be told to a worker"),
    ],
)
def test_what_is_no_dtype_says_what_was_expected(given_dtype, message):
    with pytest.raises(SpecError, match=f"the spec of 'x': .*{message}"):
        TensorSpec("x", given_dtype, ())


any_dtype = st.one_of(
    hnp.scalar_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.nested_dtypes(hnp.scalar_dtypes(), max_leaves=4).filter(lambda dtype: dtype.subdtype is None),
)


@given(any_dtype)
def test_a_canonical_name_stands_for_the_dtype(dtype):
    try:
        name = canonical_dtype(dtype)
    except SpecError as error:  # times without a unit, and structures over nothing
        assert "needs a unit" in str(error) or "no size" in str(error) or "cannot be told" in str(error)
        assert dtype.kind in "mM" or dtype.names is not None
        return
    assert canonical_dtype(name) == name
    spec = TensorSpec("x", dtype, ())
    assert spec == TensorSpec("x", name, ()) and spec.accepts(dtype)
    assert spec.accepts(dtype.newbyteorder("S"))
    if name in ("string", "bytes"):
        assert spec.numpy_dtype is None
    else:
        assert spec.numpy_dtype == dtype.newbyteorder("=")


@given(any_dtype, any_dtype)
def test_a_spec_accepts_its_own_dtype_alone(dtype, other):
    try:
        spec = TensorSpec("x", dtype, ())
    except SpecError:
        assume(False)
    same = (
        dtype.newbyteorder("=") == other.newbyteorder("=") or dtype.kind == other.kind and dtype.kind in "US"
    )
    assert spec.accepts(other) == same


def test_text_may_come_as_objects_and_numbers_may_not():
    objects = np.dtype(object)
    assert TensorSpec("x", "string", ()).accepts(objects)
    assert TensorSpec("x", "bytes", ()).accepts(objects)
    assert not TensorSpec("x", "string", ()).accepts(np.dtype("S3"))
    assert not TensorSpec("x", "bytes", ()).accepts(np.dtype("U3"))
    assert not TensorSpec("x", "float32", ()).accepts(objects)


@pytest.mark.torch
def test_torch_dtypes():
    import torch

    for name in ("float32", "bfloat16", "bool", "float8_e4m3fn", "complex64"):
        assert TensorSpec("x", getattr(torch, name), ()).dtype == name
    with pytest.raises(SpecError, match="'quint8'"):
        TensorSpec("x", torch.quint8, ())
