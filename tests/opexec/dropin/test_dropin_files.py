"""What the drop-in faces read from files by themselves: the same as the files' own libraries read, and from damaged files no more than a ValueError."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import opexec
from opexec.dropin import onnx_file
from opexec.dropin.protobuf import Message
from opexec.dropin.tensorflow.saved_model import signature_names

texts = st.text(max_size=30)


@given(
    texts,
    texts,
    texts,
    texts,
    texts,
    st.integers(-(2**63), 2**63 - 1),
    st.dictionaries(texts, texts, max_size=4),
)
def test_metadata_is_what_onnx_wrote(
    tmp_path_factory: pytest.TempPathFactory,
    producer: str,
    name: str,
    domain: str,
    text: str,
    graph_text: str,
    version: int,
    properties: dict[str, str],
) -> None:
    graph = helper.make_graph([], name, [], [], doc_string=graph_text)
    model = helper.make_model(graph, producer_name=producer)
    model.domain, model.doc_string, model.model_version = domain, text, version
    helper.set_model_props(model, properties)
    path = tmp_path_factory.getbasetemp() / "metadata.onnx"
    path.write_bytes(model.SerializeToString())
    assert onnx_file.metadata(path) == onnx_file.ModelMetadata(
        producer, name, domain, text, graph_text, version, properties
    )


FLOAT = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
TYPES = {
    "tensor(float)": FLOAT,
    "tensor(bfloat16)": helper.make_tensor_type_proto(TensorProto.BFLOAT16, ["n"]),
    "sparse_tensor(int64)": helper.make_sparse_tensor_type_proto(TensorProto.INT64, [3]),
    "seq(tensor(float))": helper.make_sequence_type_proto(FLOAT),
    "seq(map(int64,tensor(float)))": helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, FLOAT)
    ),
    "optional(seq(tensor(float)))": helper.make_optional_type_proto(helper.make_sequence_type_proto(FLOAT)),
}


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = [helper.make_value_info(name, type_) for name, type_ in TYPES.items()]
    path = tmp_path_factory.mktemp("models") / "types.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "types", [], outputs)), str(path))
    return path


def test_types_are_written_as_onnxruntime_writes_them(types: Path) -> None:
    assert onnx_file.output_types(types) == {name: name for name in TYPES}


def test_a_type_nested_without_end_is_no_recursion_without_end(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        size, head = len(content), bytearray([number << 3 | 2])
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        return bytes(head) + bytes([size]) + content

    nested = b""
    for _ in range(2_000):
        nested = field(4, field(1, nested))
    path = tmp_path / "nested.onnx"
    path.write_bytes(field(7, field(12, field(1, b"y") + field(2, nested))))
    assert onnx_file.output_types(path)["y"].startswith("seq(seq(")


@given(st.data())
def test_damaged_files_are_value_errors(types: Path, data: st.DataObject) -> None:
    content = bytearray(types.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = types.with_name("damaged.onnx")
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for read in (onnx_file.metadata, onnx_file.output_types):
        try:
            read(path)
        except ValueError:
            pass
    folder = types.with_name("saved")
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(path.read_bytes())
    with pytest.raises(opexec.LoadError):
        signature_names(folder)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_fields_or_a_value_error(content: bytes) -> None:
    try:
        fields = list(Message(content).fields())
    except ValueError:
        return
    assert all(
        number >= 0 and (isinstance(value, int) or len(value) <= len(content)) for number, value in fields
    )
