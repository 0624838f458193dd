"""The format of a model file is told from its content, whatever it is called, and nothing in it is executed.

The files are written here byte by byte, as the frameworks write them. Those that the frameworks themselves wrote are looked at by
test_load_knows_the_file_whatever_it_is_called in tests/frameworks/test_conformance.py.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from opexec.loading.formats import Format, recognise


def packed(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"\x80\x02}.")
    return path


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protocol buffer: numbers are varints below 128, bytes are of any length."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += bytes([number << 3, value])
        else:
            out += bytes([number << 3 | 2]) + _length(len(value)) + value
    return out


def _length(size: int) -> bytes:
    out = b""
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return out + bytes([size])


NODE = message((1, b"layer/x"), (2, b"Placeholder"), (5, message((1, b"dtype"), (2, b"\x30\x01"))))
GRAPH_DEF = message(
    (1, NODE), (1, message((1, b"y" * 9000), (2, b"Identity"), (3, b"layer/x"))), (4, b"\x08\x1b")
)
CAFFE2 = message((1, b"net"), (2, message((1, b"x"), (2, b"y"), (4, b"Relu"))))
SAVED_MODEL = message((1, 1), (2, message((1, b"meta"))))
PICKLED = [pickle.dumps({"weights": list(range(1000))}, protocol) for protocol in range(2, 6)]


def onnx_model() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    return helper.make_model(graph, producer_name="opexec").SerializeToString()  # type: ignore[no-any-return]


def jax_export(bytecode: bytes) -> bytes:
    """A flatbuffer of one table with two fields, a number and a vector of bytes, laid out as `jax.export` does."""
    table = struct.pack("<HHHH", 8, 12, 4, 8)
    body = struct.pack("<iHHI", 8, 5, 0, 4) + struct.pack("<I", len(bytecode)) + bytecode
    return struct.pack("<I", 4 + len(table)) + table + body


CONTENTS = {
    "onnx": [onnx_model()],
    "torchscript": [b"PYTORCH1" + bytes(64)],
    "tensorflow": [GRAPH_DEF],
    "keras": [b"\x89HDF\r\n\x1a\n" + bytes(100)],
    "jax": [
        jax_export(b"ML\xefR\x0dStableHLO_v1.10.3\0" + bytes(99)),
        b"ML\xefR\x0dStableHLO_v1.10.3\0" + bytes(99),
    ],
    "sklearn": [
        *PICKLED,
        zlib.compress(PICKLED[2]),
        gzip.compress(PICKLED[2]),
        bz2.compress(PICKLED[2]),
        lzma.compress(PICKLED[2]),
        lzma.compress(PICKLED[2], lzma.FORMAT_ALONE),
        b"tree\nversion=v4\nnum_class=1\n",
        b'{"learner":{"attributes":{},"feature_names":[]},"version":[3,0,0]}',
        b'{\n  "version": [3, 0, 0],\n  "learner": {"attributes": {}}\n}',
        b"{L\0\0\0\0\0\0\0\x07learner{L\0\0\0\0\0\0\0\x0aattributes{}",
    ],
    "tensorrt": [b"ftrt" + bytes(60), b"ptrt" + bytes(60)],
}


@pytest.mark.parametrize("name", ["model", "model.onnx", "model.pt", "model.txt", "model.pb"])
def test_content_comes_before_the_ending(tmp_path: Path, name: str) -> None:
    for platform, contents in CONTENTS.items():
        for content in contents:
            (tmp_path / name).write_bytes(content)
            found = recognise(str(tmp_path / name))
            assert found is not None and found.platform == platform, (platform, content[:40])


@pytest.mark.parametrize(
    ("names", "platform"),
    [
        (("config.json", "metadata.json", "model.weights.h5"), "keras"),
        (("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py", "net/version"), "torchscript"),
        (("net/model.json", "net/code/net.py", "net/tensors/0"), "torchscript"),
        (("serialized_exported_program.json", "serialized_state_dict.pt", "version"), "torch"),
        (("net/archive_format", "net/models/model.json", "net/data/weights/weight_0"), "torch"),
        (("net/data.pkl", "net/data/0", "net/version"), None),
    ],
)
def test_archives(tmp_path: Path, names: tuple[str, ...], platform: str | None) -> None:
    found = recognise(str(packed(tmp_path / "anything", *names)))
    assert found is not None and found.platform == platform


def test_weights_alone_are_known_for_what_they_are(tmp_path: Path) -> None:
    contents = {
        "before 1.6": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        "safetensors": struct.pack("<Q", 2) + b"{}" + bytes(8),
    }
    paths = [packed(tmp_path / "zip.pt", "zip/data.pkl", "zip/data/0")]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    for path in paths:
        found = recognise(str(path))
        assert found is not None and found.platform is None and "weights" in found.what
        assert f"{{'state_dict': '{path}'}}" in found.cure and "platform='torch'" in found.cure


def test_a_part_of_a_model_says_what_the_whole_is(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(SAVED_MODEL)
    found = recognise(str(tmp_path / "saved_model.pb"))
    assert (
        found is not None
        and found.platform is None
        and f"load the folder that holds it: {tmp_path}" in found.cure
    )
    (tmp_path / "predict_net.pb").write_bytes(CAFFE2)
    found = recognise(str(tmp_path / "predict_net.pb"))
    assert found is not None and found.platform is None and "load the folder" in found.cure


def test_folders(tmp_path: Path) -> None:
    for name, files, platform in [
        ("saved", ["saved_model.pb", "keras_metadata.pb"], "tensorflow"),
        ("text", ["saved_model.pbtxt"], "tensorflow"),
        ("nets", ["init_net.pb", "predict_net.pb"], "caffe2"),
    ]:
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
        found = recognise(str(tmp_path / name))
        assert found is not None and found.platform == platform
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "init_net.pb").touch()
    assert recognise(str(tmp_path / "half")) is None


def test_the_ending_decides_where_the_content_says_nothing(tmp_path: Path) -> None:
    for name, platform in [("a.onnx", "onnx"), ("a.PKL", "sklearn"), ("a.plan", "tensorrt")]:
        (tmp_path / name).write_bytes(b"no such thing")
        assert recognise(str(tmp_path / name)) == Format(platform, f"a file that ends in {name[1:].lower()}")
    for name in ("a.txt", "a.json", "a"):
        (tmp_path / name).write_bytes(b"tree of life {")
        assert recognise(str(tmp_path / name)) is None


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.onnx")
    assert recognise(str(tmp_path / "a.onnx")) is None


class _Bomb:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, (os.environ["OPEXEC_TEST_BOMB"],)


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEXEC_TEST_BOMB", str(tmp_path / "exploded"))
    for protocol in range(6):
        for wrapped in (bytes, zlib.compress, gzip.compress, bz2.compress):
            (tmp_path / "a.joblib").write_bytes(wrapped(pickle.dumps(_Bomb(), protocol)))
            found = recognise(str(tmp_path / "a.joblib"))
            assert found is not None and found.platform == "sklearn"
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(_Bomb()))
    recognise(str(tmp_path / "a.pt"))
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(_Bomb()))
    assert (tmp_path / "exploded").exists(), "it would have"


BEGINNINGS = [
    b"",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"BZh",
    b"\x80\x04",
    b"{",
    b"\x0a\x05",
    b"\x08\x01",
    b"ML\xefR",
    b"\x10\0\0\0",
]


@given(
    st.sampled_from([*BEGINNINGS, *(content for some in CONTENTS.values() for content in some)]),
    st.binary(),
    st.data(),
)
def test_no_file_upsets_it(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, junk: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "junk"
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut] + junk)
    recognise(str(path))


def test_a_large_onnx_file_is_not_read_whole(tmp_path: Path) -> None:
    model = onnx.load_from_string(onnx_model())
    model.graph.initializer.append(
        helper.make_tensor("w", TensorProto.UINT8, [1 << 20], bytes(1 << 20), raw=True)
    )
    path = tmp_path / "large"
    onnx.save(model, path)
    found = recognise(str(path))
    assert found is not None and found.platform == "onnx"
