"""`opexec run`, and the inputs that it reads from texts and files."""

from __future__ import annotations

import json
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from opexec import OpexecError, TensorSpec
from opexec.files import input_files, output_file
from tests.command import opexec, opexec_here
from tests.loaded import source

FLOATS = TensorSpec("x", "float32", ("n",))
WHOLE = TensorSpec("x", "int8", ())
TEXTS = TensorSpec("x", "string", ("n",))


@pytest.fixture(scope="module")
def add(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model z = x + y over float32[n]."""
    tensors = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y", "z")
    }
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "y"], ["z"])], "add", [tensors["x"], tensors["y"]], [tensors["z"]]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 6
    path = tmp_path_factory.mktemp("models") / "add.onnx"
    save(model, str(path))
    return path


# ---- the command


def test_it_runs_and_shows_small_outputs_in_full(add: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([1, 2], np.float32))
    done = opexec_here("run", add, "-i", f"x=@{tmp_path / 'x.npy'}", "-i", "y=[0.5, 1e3]", "--repeat", "3")
    assert done.status == 0, done.err
    assert done.out.startswith("z: float32[2]") and "1.5" in done.out and "1002" in done.out
    assert "onnxruntime" in done.err and "then 2 more: p50" in done.err


def test_timeouts_are_those_of_load(add: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load(**arguments: Any) -> None:
        asked.update(arguments)
        raise OpexecError("enough is known")

    monkeypatch.setattr("opexec.load", load)
    done = opexec_here("run", add, "--timeout", "3", "--load-timeout", "900")
    assert done.status == 1 and "enough is known" in done.err
    assert (asked["timeout"], asked["load_timeout"]) == (3, 900)


def test_outputs_go_to_a_file_and_to_json(add: Path, tmp_path: Path) -> None:
    out = tmp_path / "z.npz"
    done = opexec_here("run", add, "-i", "x=[1]", "-i", "y=[2]", "--output", out, "--json")
    assert json.loads(done.out)["outputs"] == {"z": {"dtype": "float32", "shape": [1], "data": [3.0]}}
    with np.load(out) as written:
        assert written["z"].tolist() == [3.0] and written["z"].dtype == np.float32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["z.npz"]


def test_what_was_written_can_be_read_again(add: Path, tmp_path: Path) -> None:
    out = tmp_path / "z.npz"
    opexec_here("run", add, "-i", "x=[1]", "-i", "y=[2]", "--output", out)
    done = opexec_here("run", add, "-i", f"x=@{out}", "-i", f"y=@{out}:z", "--json")
    assert json.loads(done.out)["outputs"]["z"]["data"] == [6.0], done.err


def test_a_large_output_is_summed_up() -> None:
    done = opexec("run", source("double"), "-i", f"x={list(range(1000))}")
    assert done.out == "y: int64[1000]  min 0, mean 999, max 1998\n", done.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["-i", "x=[1, 2]", "-i", "y=[1]"], 1, "n is 2"),
        (["-i", "x=[1"], 1, "a JSON list or @FILE for x: float32[n]"),
        (["-i", "x=[1]"], 1, "input 'y' is missing"),
        (["-i", "x=@absent.npy"], 1, "absent.npy does not exist"),
        (["-i", "x=[1]", "-i", "y=[1]", "-o", "foo=1"], 1, "no option 'foo'"),
        (["-i", "x"], 2, "expected NAME=VALUE"),
        (["-i", "x=1", "-i", "x=2"], 2, "given twice"),
        (["--device", "gpu"], 2, "expected 'cpu'"),
        (["--output", "z.npy"], 2, "ends in .npz"),
        (["--env", "2:tf"], 2, "there are 1"),
        (["--env", "absent"], 1, "no environment named 'absent'"),
    ],
)
def test_mistakes_are_told_in_a_line(add: Path, arguments: list[str], status: int, words: str) -> None:
    done = opexec_here("run", add, *arguments)
    assert done.status == status and words in done.err, done.err
    assert done.out == "" and (status == 2 or len(done.err.splitlines()) == 1)


def test_a_failing_model_is_told_in_a_line_and_its_traceback_on_demand() -> None:
    done = opexec_here("run", source("failing"), "-i", "x=1")
    assert done.status == 1 and len(done.err.splitlines()) == 1 and "--traceback shows where" in done.err
    with pytest.raises(AssertionError, match="Traceback"):  # which `opexec` here refuses
        opexec_here("run", source("failing"), "-i", "x=1", "--traceback")


# ---- inputs


def same(array: np.ndarray[Any, Any], values: Any, dtype: str) -> bool:
    return array.dtype == np.dtype(dtype) and array.tolist() == values


def test_texts_become_what_the_spec_says() -> None:
    assert same(input_files.value_of("[1, 2.5]", FLOATS, "x"), [1.0, 2.5], "f4")
    assert same(input_files.value_of("7", WHOLE, "x"), 7, "i1")
    assert input_files.value_of('["a", "b"]', TEXTS, "x").tolist() == ["a", "b"]
    word = TensorSpec("x", "string", ())
    assert input_files.value_of("a b", word, "x").item() == "a b"
    assert input_files.value_of("3", word, "x").item() == "3"
    assert input_files.value_of('"[3"', word, "x").item() == "[3"
    assert input_files.value_of("é", TensorSpec("x", "bytes", ()), "x").item() == "é".encode()


def test_without_a_spec_numpy_decides() -> None:
    assert same(input_files.value_of("3", None, "x"), 3, "i8")
    assert same(input_files.value_of("[1.5, 2]", None, "x"), [1.5, 2.0], "f8")
    assert same(input_files.value_of("true", None, "x"), True, "?")
    assert input_files.value_of("hello", None, "x").item() == "hello"


@pytest.mark.parametrize(
    ("text", "spec"),
    [("300", WHOLE), ("1.5", WHOLE), ("a", WHOLE), ("[[1], [2, 3]]", FLOATS), ("[1", None), ("null", None)],
)
def test_what_fits_no_dtype_is_refused(text: str, spec: TensorSpec | None) -> None:
    with pytest.raises(OpexecError, match="input 'x'"):
        input_files.value_of(text, spec, "x")


def test_npz_files_name_their_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", any=np.arange(2))
    np.savez(tmp_path / "two.npz", x=np.arange(3), y=np.arange(4))
    assert input_files.read(f"{tmp_path}/one.npz", None, "x").size == 2
    assert input_files.read(f"{tmp_path}/two.npz", None, "x").size == 3
    assert input_files.read(f"{tmp_path}/two.npz:y", None, "x").size == 4
    with pytest.raises(OpexecError, match="has 'x', 'y'"):
        input_files.read(f"{tmp_path}/two.npz", None, "z")


def test_no_pickle_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(OpexecError, match="cannot be read"):
        input_files.read(f"{tmp_path}/x.npy", None, "x")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".json", ".png", ".jpg", ".wav"])
@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"RIFF\0\0\0\0WAVE", b"\x89PNG\r\n\x1a\n\0"]
)
def test_broken_files_are_one_error(tmp_path: Path, ending: str, content: bytes) -> None:
    (tmp_path / f"x{ending}").write_bytes(content)
    with pytest.raises(OpexecError, match="cannot be read"):
        input_files.read(f"{tmp_path}/x{ending}", None, "x")


def test_text_files(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one\ntwo\n")
    assert input_files.read(f"{tmp_path}/x.txt", TEXTS, "x").tolist() == ["one", "two"]
    assert input_files.read(f"{tmp_path}/x.txt", None, "x").item() == "one\ntwo"
    assert input_files.read(f"{tmp_path}/x.txt", TensorSpec("x", "bytes", (1,)), "x").tolist() == [
        b"one\ntwo\n"
    ]
    (tmp_path / "n.txt").write_text("1 2\n3 4\n")
    table = input_files.read(f"{tmp_path}/n.txt", TensorSpec("x", "int32", None), "x")
    assert same(table, [[1, 2], [3, 4]], "i4")
    (tmp_path / "n.txt").write_text("1\n3\n")
    assert same(input_files.read(f"{tmp_path}/n.txt", FLOATS, "x"), [1.0, 3.0], "f4")


def test_images_are_rgb(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 2] = 255, 0, 7
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert same(input_files.read(f"{tmp_path}/x.png", None, "x"), pixels.tolist(), "u1")
    Image.fromarray(pixels).convert("L").save(tmp_path / "grey.png")
    assert input_files.read(f"{tmp_path}/grey.png", None, "x").shape == (2, 3, 3)
    turned = Image.Exif()
    turned[0x0112] = 6  # the orientation: to be turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=turned)
    assert input_files.read(f"{tmp_path}/x.jpg", None, "x").shape == (3, 2, 3)
    encoded = input_files.read(f"{tmp_path}/x.jpg", TensorSpec("x", "bytes", ()), "x")
    assert encoded.item() == (tmp_path / "x.jpg").read_bytes()


@pytest.mark.parametrize(
    ("width", "content", "samples", "dtype", "floats"),
    [
        (1, bytes([0, 128, 192]), [0, 128, 192], "u1", [-1.0, 0.0, 0.5]),
        (2, struct.pack("<3h", -32768, 0, 16384), [-32768, 0, 16384], "i2", [-1.0, 0.0, 0.5]),
        (3, b"\0\0\x80\0\0\0\0\0\x40", [-(2**31), 0, 2**30], "i4", [-1.0, 0.0, 0.5]),
        (4, struct.pack("<3i", -(2**31), 0, 2**30), [-(2**31), 0, 2**30], "i4", [-1.0, 0.0, 0.5]),
    ],
)
def test_sounds(
    tmp_path: Path, width: int, content: bytes, samples: list[int], dtype: str, floats: list[float]
) -> None:
    with wave.open(str(tmp_path / "x.wav"), "wb") as sound:
        sound.setparams((1, width, 8000, 0, "NONE", ""))
        sound.writeframes(content)
    assert same(input_files.read(f"{tmp_path}/x.wav", None, "x"), samples, dtype)
    assert same(input_files.read(f"{tmp_path}/x.wav", FLOATS, "x"), floats, "f4")


def test_channels_are_the_second_axis(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "x.wav"), "wb") as sound:
        sound.setparams((2, 2, 8000, 0, "NONE", ""))
        sound.writeframes(struct.pack("<4h", 1, 2, 3, 4))
    assert same(input_files.read(f"{tmp_path}/x.wav", None, "x"), [[1, 2], [3, 4]], "i2")


def test_outputs_are_written_without_pickles(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    output_file.write(path, {"file": np.array(["a", "é"], object), "raw": np.array([b"\0a"], object)})
    with np.load(path, allow_pickle=False) as written:
        assert written["file"].tolist() == ["a", "é"] and written["raw"].tolist() == [b"\0a"]
    for bad in (np.array(["a\0"], object), np.array([1], object)):
        with pytest.raises(OpexecError, match="output 'x'"):
            output_file.write(path, {"x": bad})
    assert [file.name for file in tmp_path.iterdir()] == ["out.npz"]
