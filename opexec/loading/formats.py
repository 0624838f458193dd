"""What a model file or folder holds, told from its content.

Only bytes are looked at: nothing is unpickled, and no framework is imported. Where the content says nothing (a pickle of the oldest
protocols, say), the file's ending does.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import stat
import string
import zipfile
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Iterator
from dataclasses import dataclass
from lzma import LZMADecompressor, LZMAError
from typing import BinaryIO

#: What `load` takes, for messages.
KNOWN = (
    "expected an ONNX file (.onnx), TorchScript (.pt), a torch.export archive (.pt2), a TensorFlow GraphDef (.pb) or SavedModel folder, "
    "a Keras model (.keras, .h5), a joblib or pickle file of scikit-learn, an xgboost (.ubj, .json) or LightGBM (.txt) model, "
    "a jax.export file, a Caffe2 folder, a TensorRT engine, or 'path/to/file.py:factory' or 'package.module:factory', where the "
    "factory is a function that returns the model"
)

#: Endings -> platforms, for content that says nothing. (.json and .txt can be anything.)
ENDINGS = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".pt2": "torch",
    ".pb": "tensorflow",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".jaxexport": "jax",
    ".stablehlo": "jax",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
    ".ubj": "sklearn",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
}

_WITH_A_FACTORY = (
    "write a function that builds the model, in a file, and load 'file.py:factory' with platform='torch' and "
    "options={{'state_dict': {path!r}}}"
)

_HEAD = 4096

_HDF5 = b"\x89HDF\r\n\x1a\n"
#: TorchScript as torch 1.0 wrote it, in a container of its own.
_TORCH_1_0 = b"PYTORCH1"
#: The pickled number that every file of torch.save began with before torch 1.6.
_TORCH_SAVE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_TENSORRT = (b"ftrt", b"ptrt")
_MLIR = b"ML\xefR"
_STABLEHLO = re.compile(rb"\AML\xefR.{0,4}(StableHLO|MLIR)", re.DOTALL)
_LIGHTGBM = re.compile(rb"\Atree\r?\nversion=")
_XGBOOST = re.compile(rb'\A\s*\{.{0,600}?"learner"\s*:\s*\{', re.DOTALL)
_XGBOOST_UBJ = re.compile(rb"\A\{.{0,600}?learner\{", re.DOTALL)


@dataclass(frozen=True)
class Format:
    """What a file was found to hold.

    `platform` runs it; None where none can, and then `cure` says what to do instead.
    """

    platform: str | None
    what: str
    cure: str = ""


def recognise(path: str) -> Format | None:
    """The format of a file or folder, or None if it is none of those known. Raises OSError if it cannot be read."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return _folder(path)
    if not stat.S_ISREG(mode):  # reading a pipe would wait for ever
        return None
    found = _content(path)
    if found is None:
        ending = os.path.splitext(path)[1].lower()
        if ending in ENDINGS:
            found = Format(ENDINGS[ending], f"a file that ends in {ending}")
    return found


def _folder(path: str) -> Format | None:
    names = set(os.listdir(path))
    if names & {"saved_model.pb", "saved_model.pbtxt"}:
        return Format("tensorflow", "a SavedModel")
    if {"init_net.pb", "predict_net.pb"} <= names:
        return Format("caffe2", "a Caffe2 model")
    return None


def _content(path: str) -> Format | None:
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if head.startswith(b"PK\x03\x04"):
            return _zip(file, path)
        if head.startswith(_TORCH_1_0):
            return Format("torchscript", "TorchScript")
        if head.startswith(_HDF5):
            return Format("keras", "HDF5")
        if head.startswith(_TENSORRT):
            return Format("tensorrt", "a TensorRT engine")
        if head.startswith(_TORCH_SAVE):
            return _torch_weights(path)
        if _is_pickle(_decompressed(head)):
            return Format("sklearn", "a pickle")
        if _LIGHTGBM.match(head):
            return Format("sklearn", "a LightGBM model")
        if _XGBOOST.match(head) or _XGBOOST_UBJ.match(head):
            return Format("sklearn", "an xgboost model")
        if _is_safetensors(head, os.fstat(file.fileno()).st_size):
            return Format(None, "weights (safetensors)", _WITH_A_FACTORY.format(path=path))
        if _STABLEHLO.match(head) or _is_jax_export(file):
            return Format("jax", "jax.export")
        return _protobuf(file, path)


def _torch_weights(path: str) -> Format:
    return Format(
        None,
        "what torch.save wrote: weights (a state_dict) or a pickled module, and no TorchScript, which has its code with it",
        _WITH_A_FACTORY.format(path=path),
    )


# ---- archives


def _zip(file: BinaryIO, path: str) -> Format | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return None
    if {"config.json", "metadata.json"} <= {*names}:
        return Format("keras", "a Keras model")
    # torch puts everything into one folder, which is called like the file was when it was written.
    inner = {name.partition("/")[2] for name in names}
    if "serialized_exported_program.json" in {*names} | inner:
        return Format("torch", "a torch.export archive")
    if any(re.fullmatch(r"models/[^/]+\.json", name) for name in {*names} | inner):
        return Format("torch", "a torch.export archive")
    if "constants.pkl" in inner or (
        "model.json" in inner and any(name.startswith("code/") for name in inner)
    ):
        return Format("torchscript", "TorchScript")
    if "data.pkl" in inner:
        return _torch_weights(path)
    return None


# ---- pickles


def _decompressed(head: bytes) -> bytes:
    """The first bytes of what joblib may have compressed; `head` itself where it is not compressed."""
    try:
        if head.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(head, 64)
        if head.startswith(b"x"):
            return zlib.decompressobj().decompress(head, 64)
        if head.startswith(b"BZh"):
            return BZ2Decompressor().decompress(head, 64)
        if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
            return LZMADecompressor().decompress(head, 64)
    except (zlib.error, LZMAError, OSError, EOFError):
        pass
    return head


def _is_pickle(head: bytes) -> bool:
    """Whether these are the first bytes of a pickle of protocol 2 to 5, by its first two opcodes."""
    return (
        len(head) > 2
        and head[0] == 0x80  # PROTO
        and 2 <= head[1] <= 5
        and (head[1] < 4 or head[2] == 0x95)  # FRAME
        and head[2:3] in b"\x95}](){NctlsX\x8a\x8cK)U\x85\x86\x87"
    )


# ---- others


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return (
        len(head) > 8 and head[8:9] == b"{" and 2 <= length <= size - 8 and _begins_as_json(head[8:], length)
    )


def _begins_as_json(head: bytes, length: int) -> bool:
    if length > len(head):
        return head[:2] == b'{"'
    try:
        return isinstance(json.loads(head[:length]), dict)
    except ValueError:
        return False


def _is_jax_export(file: BinaryIO) -> bool:
    """Whether it is the flatbuffer of `jax.export.Exported.serialize`: a table, one of whose fields is StableHLO's bytecode.

    The layout of a flatbuffer: https://flatbuffers.dev/internals/. It has no mark of its own, so the reference to the bytecode is followed.
    """
    size = os.fstat(file.fileno()).st_size
    if size < 64:
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:

        def number(at: int, width: int, signed: bool = False) -> int:
            return (
                int.from_bytes(data[at : at + width], "little", signed=signed)
                if 0 <= at <= size - width
                else 0
            )

        root = number(0, 4)
        table = root - number(root, 4, signed=True)  # of the fields' offsets from the root
        if not (4 <= root < size and 0 < table < size):
            return False
        for at in range(table + 4, table + min(number(table, 2), 128), 2):
            field = root + number(at, 2)
            vector = field + number(field, 4)
            if field != root and _STABLEHLO.match(data[vector + 4 : vector + 32]):
                return True
    return False


# ---- protocol buffers
#
# A message is a sequence of fields, each a varint (number << 3 | wire type) and its value:
# https://protobuf.dev/programming-guides/encoding/. Which message it is shows in the numbers and types of its first fields:
#   ONNX ModelProto       1 ir_version: varint, 7 graph: message
#   SavedModel            1 saved_model_schema_version: varint, 2 meta_graphs: message
#   TensorFlow GraphDef   1 node: message (1 name, 2 op: texts)
#   Caffe2 NetDef         1 name: text, 2 op: message

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIELDS_READ = 256
_PRINTABLE = set(string.printable.encode())


def _protobuf(file: BinaryIO, path: str) -> Format | None:
    kinds: dict[int, int] = {}
    first = b""
    for number, wire, value in _fields(file):
        if number not in kinds and len(kinds) > 24:
            return None
        kinds.setdefault(number, wire)
        if len(kinds) == 1:
            first = value
            if _is_node(value):
                return Format("tensorflow", "a GraphDef")
    if kinds.get(1) == _VARINT and kinds.get(7) == _LENGTH:
        return Format("onnx", "ONNX")
    if kinds.get(1) == _VARINT and kinds.get(2) == _LENGTH and set(kinds) == {1, 2}:
        return Format(None, "a SavedModel's graph", f"load the folder that holds it: {os.path.dirname(path)}")
    if kinds.get(1) == kinds.get(2) == _LENGTH and first and _PRINTABLE.issuperset(first):
        return Format(
            None,
            "a Caffe2 net",
            "put init_net.pb and predict_net.pb into one folder, and load the folder",
        )
    return None


def _fields(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Numbers, wire types and first bytes of a message's fields, without reading long ones. Nothing at all if it is no message."""
    size = os.fstat(file.fileno()).st_size
    found: list[tuple[int, int, bytes]] = []
    at = 0
    while at < size and len(found) < _FIELDS_READ:
        file.seek(at)
        piece = file.read(_HEAD)
        try:
            tag, used = _varint(piece, 0)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 12:
                return
            length = {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
            if wire == _VARINT:
                _, used = _varint(piece, used)
            elif wire == _LENGTH:
                length, used = _varint(piece, used)
            elif not length:
                return
        except IndexError:
            return
        at += used + length
        if at > size:
            return
        found.append((number, wire, piece[used : used + length]))
    yield from found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def _is_node(data: bytes) -> bool:
    """Whether these bytes begin with a GraphDef's NodeDef: a name and the operation's name, both texts."""
    try:
        if data[0] != 1 << 3 | _LENGTH:
            return False
        length, at = _varint(data, 1)
        name = data[at : at + length]
        at += length
        if data[at] != 2 << 3 | _LENGTH:
            return False
        length, at = _varint(data, at + 1)
    except IndexError:
        return False
    operation = data[at : at + length]
    return (
        bool(name)
        and _PRINTABLE.issuperset(name)
        and re.fullmatch(rb"[A-Za-z_][\w>]*", operation) is not None
    )
