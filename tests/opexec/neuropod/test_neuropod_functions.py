"""Neuropod's functions beside loading and packaging, for programs that call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec.neuropod.dependencies import preinstall_deps
from opexec.neuropod.evaluation import load_and_test_neuropod, load_test_data
from opexec.neuropod.loader import load_neuropod
from opexec.neuropod.serialization import deserialize, deserialize_dict, serialize
from opexec.neuropod.stubs import randomify_neuropod
from tests.neuropods import FIVE, packaged, spec

INPUTS = [
    spec("words", "n", dtype="string"),
    spec("table", "n", "m", dtype="int32"),
    spec("rows", "n", None),
    spec("one", dtype="float64"),
]
OUTPUTS = [
    spec("said", "n", dtype="string"),
    spec("counts", "n", "m", dtype="int8"),
    spec("more", "n", None),
    spec("large", 3, dtype="uint64"),
    spec("flag", "k", dtype="bool"),
    spec("scalar"),
]


def test_a_stub_gives_random_values_that_fit_its_specs(tmp_path: Path) -> None:
    path = randomify_neuropod(str(tmp_path / "stub"), INPUTS, OUTPUTS)
    with load_neuropod(path, visible_gpu=None, isolation="none") as neuropod:
        without, again = neuropod.infer({}), neuropod.infer({})
        n, m = without["counts"].shape
        assert without["said"].shape == (n,) and without["more"].shape[0] == n
        assert 1 <= min(n, m) and max(n, m) <= 99
        assert {name: array.shape for name, array in again.items()} == {
            name: array.shape for name, array in without.items()
        }
        assert (without["large"] != again["large"]).any()
        given = {"rows": np.zeros((4, 2), np.float32), "table": np.zeros((4, 7), np.int32)}
        fitting = neuropod.infer(given)  # which checks that n is the same everywhere
        assert fitting["counts"].shape == (4, 7) and fitting["more"].shape == (4, without["more"].shape[1])
        with pytest.raises(RuntimeError, match="'bogus'"):
            neuropod.infer({"bogus": FIVE})
        with pytest.raises(RuntimeError, match="'rows'"):
            neuropod.infer({"rows": FIVE})
    with pytest.raises(ValueError, match="exists already"):
        randomify_neuropod(path, INPUTS, OUTPUTS)
    with pytest.raises(ValueError, match="dtype"):
        randomify_neuropod(tmp_path / "other", INPUTS, [spec("out", dtype="no such")])


def test_a_package_is_held_against_what_is_expected(tmp_path: Path) -> None:
    path, given = packaged(tmp_path), {"x": FIVE, "y": FIVE}
    args = {"visible_gpu": None, "isolation": "none"}
    load_and_test_neuropod(path, given, {"out": 2 * FIVE}, neuropod_load_args=args)
    load_and_test_neuropod(path, test_input_data=given, neuropod_load_args=args)
    with pytest.raises(ValueError, match="output 'out'"):
        load_and_test_neuropod(path, given, {"out": FIVE}, args)
    with pytest.raises(RuntimeError, match="as it was asked to"):
        load_and_test_neuropod(path, {**given, "fail": np.array(True)}, neuropod_load_args=args)


def test_the_test_data_of_a_package(tmp_path: Path) -> None:
    assert load_test_data(packaged(tmp_path / "without")) is None
    given, expected = {"x": FIVE, "y": FIVE}, {"out": 2 * FIVE}
    found = load_test_data(packaged(tmp_path, test_input_data=given, test_expected_out=expected))
    assert found is not None
    np.testing.assert_equal(found, {"test_input": given, "test_output": expected})
    with pytest.raises(RuntimeError) as caught:
        load_test_data(tmp_path / "nothing")
    assert isinstance(caught.value, opexec.PackageError)


def test_test_data_of_a_model_without_inputs(tmp_path: Path) -> None:
    code = """
        import numpy as np

        def get_model(data_path):
            return lambda: {"out": np.zeros(1, np.float32)}
        """
    path = packaged(tmp_path, code, input_spec=[], output_spec=[spec("out", 1)], test_input_data={})
    assert load_test_data(path) == {"test_input": {}, "test_output": None}


def test_requirements_are_installed_ahead_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preinstall_deps("3", requirements="\n    # what the model needs\n    six==1.16.0\n    ")
    code = """
        import six

        def get_model(data_path):
            assert six.__version__ == "1.16.0"
            return lambda x: {"out": x}
        """
    path = packaged(tmp_path, code, requirements="six==1.16.0", input_spec=[spec("x", "batch_size")])
    monkeypatch.setenv("PATH", "")  # and so no uv, which builds
    with load_neuropod(path, visible_gpu=None) as neuropod:
        np.testing.assert_array_equal(neuropod.infer({"x": FIVE})["out"], FIVE)


@pytest.mark.parametrize("shape", [(0,), (3,), (2, 3, 4), ()])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint64", "bool", "U3", "S2"])
def test_arrays_become_bytes_and_arrays_again(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.full(shape, 1).astype(dtype)
    again = deserialize(serialize(array))
    assert again.dtype == array.dtype and again.shape == shape and (again == array).all()
    both: dict[str, Any] = {"a/b": array, "file": array[..., None]}
    found = deserialize_dict(serialize(both))
    assert list(found) == list(both)
    np.testing.assert_equal(found, both)


def test_bytes_that_are_no_arrays_are_refused() -> None:
    with pytest.raises(TypeError):
        deserialize("bogus")  # type: ignore[arg-type]
    whole = serialize(FIVE)
    for content in (b"", b"bogus", whole[:-30], whole.replace(b"NUMPY", b"OTHER")):
        with pytest.raises(RuntimeError, match="expected what serialize"):
            deserialize(content)
    with pytest.raises(RuntimeError, match=r"a dict of \['x', 'y'\]"):
        deserialize(serialize({"x": FIVE, "y": FIVE}))
    with pytest.raises(ValueError, match="Object arrays"):
        serialize(np.array([{}], object))
