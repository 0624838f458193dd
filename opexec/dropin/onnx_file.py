"""What an ONNX file says about itself that no worker tells: its metadata, and outputs that are no tensors.

Field numbers are those of onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path

from .protobuf import Message

# ModelProto
_PRODUCER_NAME, _DOMAIN, _MODEL_VERSION, _DOC_STRING, _GRAPH, _METADATA = 2, 4, 5, 6, 7, 14
# GraphProto
_GRAPH_NAME, _GRAPH_DOC_STRING, _OUTPUT = 2, 10, 12
# TypeProto: which field is there says what the type is; the element's type lies in field 1, of a map the value's in 2.
_TENSOR, _SEQUENCE, _MAP, _SPARSE, _OPTIONAL = 1, 4, 5, 8, 9

_ELEMENTS = (
    "undefined float uint8 int8 uint16 int16 int32 int64 string bool float16 double uint32 uint64 complex64 complex128 bfloat16 "
    "float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz uint4 int4 float4e2m1"
).split()


_DEEPEST = 16  # no real type is nested deeper


@dataclass
class ModelMetadata:
    """As onnxruntime's class of that name."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0
    custom_metadata_map: dict[str, str] = field(default_factory=dict)


def metadata(path: Path) -> ModelMetadata:
    """Raises OSError, and ValueError for what is no ONNX file."""
    model = _open(path)
    graph = model.message(_GRAPH)
    return ModelMetadata(
        producer_name=model.text(_PRODUCER_NAME),
        graph_name=graph.text(_GRAPH_NAME),
        domain=model.text(_DOMAIN),
        description=model.text(_DOC_STRING),
        graph_description=graph.text(_GRAPH_DOC_STRING),
        version=model.number(_MODEL_VERSION),
        custom_metadata_map={entry.text(1): entry.text(2) for entry in model.messages(_METADATA)},
    )


def output_types(path: Path) -> dict[str, str]:
    """The type of each output as onnxruntime writes it, such as ``"seq(map(int64,tensor(float)))"``. Raises as `metadata`."""
    graph = _open(path).message(_GRAPH)
    return {value.text(1): _type(value.message(2)) for value in graph.messages(_OUTPUT)}


def _open(path: Path) -> Message:
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise ValueError(f"{path} is empty; expected an ONNX file")
        return Message(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def _type(message: Message, depth: int = 0) -> str:
    for number, content in message.fields():
        if isinstance(content, int) or depth > _DEEPEST:
            continue
        inner = Message(content)
        if number in (_TENSOR, _SPARSE):
            name = "tensor" if number == _TENSOR else "sparse_tensor"
            return f"{name}({_element(inner.number(1))})"
        if number == _SEQUENCE:
            return f"seq({_type(inner.message(1), depth + 1)})"
        if number == _MAP:
            return f"map({_element(inner.number(1))},{_type(inner.message(2), depth + 1)})"
        if number == _OPTIONAL:
            return f"optional({_type(inner.message(1), depth + 1)})"
    return "undefined"


def _element(number: int) -> str:
    return _ELEMENTS[number] if 0 <= number < len(_ELEMENTS) else "undefined"
