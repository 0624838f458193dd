"""Test data of packages: what Python 2 and 3 and numpy 1 and 2 wrote is read, and a pickle of anything else is refused before it runs."""

from __future__ import annotations

import collections
import pickle

import numpy as np
import pytest

from opexec.workers.platforms import package_pickle, package_test_data

# As Python 2.7 with numpy 1.16 writes it, by hand: {"test_input": {"x": np.arange(2, dtype="<i4"), "s": np.array(["b\xc3\xbc", u"\xfc"],
# dtype=object)}, "test_output": None}. Its str has the opcode U, whatever it holds; its unicode has X.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\ntest_inputq\x02}q\x03(U\x01xq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06"
    b"K\x00\x85q\x07U\x01bq\x08\x87q\tRq\n(K\x01K\x02\x85q\x0bcnumpy\ndtype\nq\x0cU\x02i4q\rK\x00K\x01\x87q\x0eRq\x0f"
    b"(K\x03U\x01<q\x10NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x11b\x89U\x08\x00\x00\x00\x00\x01\x00\x00\x00q\x12tq\x13b"
    b"U\x01sq\x14h\x05h\x06K\x00\x85q\x15h\x08\x87q\x16Rq\x17(K\x01K\x02\x85q\x18h\x0cU\x02O8q\x19K\x00K\x01\x87q\x1aRq\x1b"
    b"(K\x03U\x01|q\x1cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tq\x1db\x89]q\x1e(U\x03b\xc3\xbcq\x1fX\x02\x00\x00\x00\xc3\xbcq e"
    b'tq!buU\x0btest_outputq"Nu.'
)


def reader(path, bytes_tensors=()):
    return package_test_data.load(str(path), {"bytes": list(bytes_tensors)})


def writer(path):
    return package_test_data.load(str(path), {"write": True})


def read(path, bytes_tensors=()):
    return reader(path, bytes_tensors).run({}, None)


def written(tmp_path, content, protocol=2):
    path = tmp_path / "test_data.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def test_what_python_2_wrote(tmp_path):
    found = read(written(tmp_path, PYTHON_2))
    assert found["test_output"] is None and sorted(found["test_input"]) == ["s", "x"]
    np.testing.assert_array_equal(found["test_input"]["x"], np.arange(2, dtype=np.int32))
    assert found["test_input"]["s"].tolist() == ["b\u00fc", "\u00fc"]  # a str in UTF-8 and a unicode
    kept = read(tmp_path / "test_data.pkl", ["test_input/s"])
    assert kept["test_input"]["s"].tolist() == ["b\u00fc".encode(), "\u00fc".encode()]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_every_protocol_under_the_names_of_numpy_1_and_2(protocol, core, tmp_path):
    inputs = collections.OrderedDict(
        x=np.arange(6, dtype=">f4").reshape(2, 3).T,
        scalar=np.float32(2.5),
        text=np.array(["a", "b\u00fc"]),
        one=np.str_("c"),
        raw=np.array([b"\xff\x00", b""], object),
        number=3,
        listed=[1.5, 2],
        texts=[["a", "zero\0"], ["", "b\u00fc"]],
        complex=1j,
        nothing=np.zeros((0, 3), bool),
    )
    content = pickle.dumps({"test_input": inputs, "test_output": {"y": np.arange(3)}}, protocol)
    if protocol < 4:  # later ones say how long each name is
        content = content.replace(b"numpy._core.", core).replace(b"numpy.core.", core)
    found = read(written(tmp_path, content), ["test_input/raw"])
    given = found["test_input"]
    np.testing.assert_array_equal(given["x"], inputs["x"])
    assert given["x"].dtype == np.float32 and given["x"].dtype.isnative and given["scalar"] == 2.5
    assert given["text"].tolist() == ["a", "b\u00fc"] and given["one"].tolist() == "c"
    assert given["raw"].tolist() == [b"\xff\x00", b""]
    assert given["number"] == 3 and given["listed"].tolist() == [1.5, 2.0]
    assert given["texts"].tolist() == inputs["texts"] and given["complex"] == 1j
    assert given["nothing"].shape == (0, 3) and found["test_output"]["y"].tolist() == [0, 1, 2]


class Calls:
    """Unpickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "name, value",
    [
        ("eval", Calls(eval, "1/0")),
        ("getattr", Calls(getattr, "", "join")),
        ("system", Calls(__import__("os").system, "false")),
        ("Calls", Calls),
        ("load", Calls(np.load, "nowhere.npy")),
        ("defaultdict", collections.defaultdict(list)),
        ("x?range", range(3)),
    ],
)
def test_anything_else_is_refused_by_name(protocol, name, value, tmp_path):
    path = written(tmp_path, {"test_input": {"x": value}, "test_output": None}, protocol)
    with pytest.raises(
        pickle.UnpicklingError, match=r"asks for [\w.]+\.{}, which is refused".format(name)
    ) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"c__builtin__\neval\n(S'1/0'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        b"cnumpy._core.multiarray\nset_string_function\n(tR.",
        b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
        b"\x80\x04\x8c\x09ml_dtypes\x8c\x10bfloat16.__doc__\x93.",
        b"cml_dtypes\nfinfo\n(tR.",
        b"Pwhere\n.",
        b"\x80\x02\x82\x01.",  # an extension that a program may register
    ],
)
def test_no_way_around_the_list(content, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises((pickle.UnpicklingError, ValueError), match="test_data.pkl"):
        package_pickle.read(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"no pickle", pickle.dumps({"x": 1}, 2)[:-2], b"\x80\x63."]
)
def test_a_broken_file_is_named(content, tmp_path):
    with pytest.raises((pickle.UnpicklingError, ValueError), match="test_data.pkl"):
        read(written(tmp_path, content))


@pytest.mark.parametrize("content", [3, {}, {"test_input": [1]}, ["test_input"]])
def test_other_contents_are_named(content, tmp_path):
    with pytest.raises(ValueError, match="expected a dict with the dicts 'test_input' and 'test_output'"):
        read(written(tmp_path, content))


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "test_data.pkl"
    texts, trailing = np.empty(2, object), np.empty(1, object)
    texts[:], trailing[:] = ["a", "b\u00fc"], ["zero\0"]
    raw = np.array([b"\x00\xff\x00", b""], object)
    given = {"x": np.arange(3, dtype=np.float32), "s": texts, "z": trailing, "raw": raw}
    tensors = {"test_input/" + name: array for name, array in given.items()}
    writer(path).run(dict(tensors, **{"test_output/raw": raw}), None)
    found = read(path, ["test_input/raw", "test_output/raw"])
    assert {name: array.tolist() for name, array in found["test_input"].items()} == {
        name: array.tolist() for name, array in given.items()
    }
    assert found["test_output"]["raw"].tolist() == raw.tolist()
    writer(path).run({"test_input/x": given["x"]}, None)
    assert read(path)["test_output"] is None
