"""What `load` accepts as a source, and what it says of anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opexec.errors import LoadError
from opexec.loading.source import Source, parse


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (
        "a.onnx",
        "B.ONNX",
        "a.pt",
        "a.pth",
        "notes.txt",
        "bare",
        "home/a.onnx",
        "home/m.py",
        "odd:name.onnx",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "m.py").write_text("def make(): ...\ndef _hidden(): ...\ndef other(): ...\nclass C: ...\n")
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "saved").mkdir()
    (tmp_path / "notes.txt").write_text("Dear all")
    (tmp_path / "weights.pt").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    return tmp_path


@pytest.mark.parametrize(
    "given, platform, target",
    [
        ("a.onnx", "onnx", "a.onnx"),
        ("./saved/../a.onnx", "onnx", "a.onnx"),
        ("B.ONNX", "onnx", "B.ONNX"),
        ("odd:name.onnx", "onnx", "odd:name.onnx"),
        ("a.pt", "torchscript", "a.pt"),
        ("a.pth", "torchscript", "a.pth"),
        ("~/a.onnx", "onnx", "home/a.onnx"),
        (Path("a.onnx"), "onnx", "a.onnx"),
        (b"a.onnx", "onnx", "a.onnx"),
        ("m.py:make", "python", "m.py:make"),
        ("m.py:C.build", "python", "m.py:C.build"),
        ("~/m.py:make", "python", "home/m.py:make"),
        (Path("m.py:make"), "python", "m.py:make"),
    ],
)
def test_files_become_absolute(given: str | bytes | Path, platform: str, target: str, folder: Path) -> None:
    assert parse(given) == Source(platform, str(folder / target))  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["package.module:factory", "module:make", "package.module:Class.make"])
def test_modules_stay_names(given: str, folder: Path) -> None:
    assert parse(given) == Source("python", given)


def test_links_are_not_followed(folder: Path) -> None:
    (folder / "link.onnx").symlink_to("a.onnx")
    assert parse("link.onnx").target == str(folder / "link.onnx")


def test_an_absolute_path_stays(folder: Path) -> None:
    assert parse(str(folder / "a.onnx")).target == str(folder / "a.onnx")


EXPECTED = "expected an ONNX file"


@pytest.mark.parametrize(
    "given, words",
    [
        ("gone.onnx", "there is no file or folder {folder}/gone.onnx; check the path"),
        ("gone.py", "there is no file or folder {folder}/gone.py"),
        ("gone.py:make", "there is no file {folder}/gone.py, which 'gone.py:make' names"),
        ("saved", f"{EXPECTED}.*{{folder}}/saved is a folder"),
        ("notes.txt", f"{EXPECTED}.*{{folder}}/notes.txt is none of these \\(it begins with b'Dear all'\\)"),
        ("bare", f"{EXPECTED}.*{{folder}}/bare is none of these \\(it is empty\\)"),
        ("m.py", "needs the name of its factory: 'm.py:factory'. Functions in {folder}/m.py: make, other$"),
        ("broken.py", "Functions in {folder}/broken.py: none at its top level$"),
        ("m.py:", "expected the name of a factory after the colon.*received 'm.py:'"),
        ("m.py:make()", "expected the name of a factory after the colon"),
        ("module:", "expected the name of a factory after the colon"),
        ("", f"{EXPECTED}.*{{folder}} is a folder"),
        (":make", f"{EXPECTED}.*received ':make', which is neither"),
        ("a name", f"{EXPECTED}.*received 'a name', which is neither"),
        ("no/such/thing", "there is no file or folder {folder}/no/such/thing"),
        (
            "weights.pt",
            "holds what torch.save wrote: weights .*with platform='torch' and options={{'state_dict'",
        ),
        (None, f"{EXPECTED}.*received an object of type NoneType"),
        (len, f"{EXPECTED}.*received an object of type builtin_function_or_method"),
    ],
)
def test_anything_else_is_refused_with_what_is_known(given: object, words: str, folder: Path) -> None:
    with pytest.raises(LoadError, match=words.format(folder=folder)) as caught:
        parse(given)  # type: ignore[arg-type]
    assert caught.value.stage == "source"


def test_a_platform_that_is_named_takes_any_source(folder: Path) -> None:
    assert parse("m.py:make", "torch") == Source("torch", f"{folder}/m.py:make")
    assert parse("module:make", "jax") == Source("jax", "module:make")
    assert parse("notes.txt", "mine") == Source("mine", f"{folder}/notes.txt")
    assert parse("saved", "mine") == Source("mine", f"{folder}/saved")
    assert parse("hub://any/thing", "mine") == Source("mine", "hub://any/thing")
    with pytest.raises(LoadError, match="there is no file or folder"):
        parse("gone.onnx", "onnx")
    for wrong in ("", 5):
        with pytest.raises(ValueError, match="expected its name, as in 'python'"):
            parse("a.onnx", wrong)  # type: ignore[arg-type]


def test_a_path_in_any_encoding(folder: Path) -> None:
    path = os.fsencode(folder) + b"/\xff.onnx"
    with open(path, "wb"):
        pass
    assert os.fsencode(parse(path).target) == path  # type: ignore[arg-type]
