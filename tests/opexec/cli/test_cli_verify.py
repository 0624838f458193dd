"""`opexec verify`: files against the manifest, and the model against its test data, whose pickle only a worker reads."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opexec import ModelError, OpexecError, load
from opexec.comparison.trial import try_package
from opexec.package import read
from opexec.packages.test_data import read_test_data
from tests.command import on_terminal, opexec, opexec_here
from tests.opexec.packages.package_samples import PUBLISHED, folder_of, manifest_of, zip_of

CODE = "import numpy as np\n\ndef make(data):\n    return lambda x, word: {'y': x * 2, 'said': np.array(word.tolist())}\n"
X = np.array([1, 2], np.float32)
WORD = np.array(["a", "é"])
SPECS = {
    "input_spec": [
        {"name": "x", "dtype": "float32", "shape": ["n"]},
        {"name": "word", "dtype": "string", "shape": ["n"]},
    ],
    "output_spec": [
        {"name": "y", "dtype": "float32", "shape": ["n"]},
        {"name": "said", "dtype": "string", "shape": ["n"]},
    ],
}


def package(test_data: bytes | None = None, code: str = CODE) -> dict[str, bytes]:
    """The files of a package whose model is Python code; y = 2 x, said = word."""
    config = {"name": "doubling", "platform": "python", **SPECS}
    files = {
        "config.json": json.dumps(config).encode(),
        "0/config.json": b'{"entrypoint_package": "small.model", "entrypoint": "make"}',
        "0/code/small/__init__.py": b"",
        "0/code/small/model.py": code.encode(),
        **({} if test_data is None else {"test_data.pkl": test_data}),
    }
    return {**files, "manifest.json": manifest_of(files)}


def pickled(y: Any = X * 2, said: Any = WORD, **more: Any) -> bytes:
    """Test data; without y, with no outputs."""
    outputs = None if y is None else {"y": y, "said": said}
    return pickle.dumps({"test_input": {"x": X, "word": WORD, **more}, "test_output": outputs}, protocol=2)


def verified(path: Path, *options: str, status: int = 0) -> dict[str, Any]:
    done = opexec_here("verify", path, "--json", *options)
    assert done.status == status, done.out + done.err
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_right_package(tmp_path: Path, as_zip: bool) -> None:
    path = (zip_of if as_zip else folder_of)(tmp_path / "doubling", package(pickled()))
    found = verified(path)
    assert found["manifest"] == {"present": True, "matches": True, "problem": None}
    assert found["test_data"]["right"] is True and found["test_data"]["misfits"] == []
    assert found["test_data"]["runs_in"]["framework"] == "python"
    lines = opexec("verify", path).out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "ok"]


def test_a_wrong_answer(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "doubling", package(pickled(X * 3, WORD[::-1])))
    found = verified(path, status=1)["test_data"]
    assert found["right"] is False and len(found["wrong"]) == 2
    assert "output 'y': 2 of 2 elements differ" in found["wrong"][0] and "'said'" in found["wrong"][1]
    assert verified(path, "--no-run")["test_data"]["right"] is None
    close = folder_of(tmp_path / "close", package(pickled(X * 2 + np.float32(0.01))))
    assert verified(close, status=1)["test_data"]["right"] is False
    assert verified(close, "--atol", "0.1")["test_data"]["right"] is True


def test_a_model_that_fails(tmp_path: Path) -> None:
    code = CODE.replace("lambda x, word: {", "lambda x, word: 1 / 0 or {")
    (line,) = verified(folder_of(tmp_path / "a", package(pickled(), code)), status=1)["test_data"]["wrong"]
    assert "ZeroDivisionError" in line and "Traceback" not in line
    (line,) = verified(folder_of(tmp_path / "b", package(pickled(), "1 / 0")), status=1)["test_data"]["wrong"]
    assert "could not be loaded" in line and "ZeroDivisionError" in line


def test_without_outputs_it_only_has_to_answer(tmp_path: Path) -> None:
    assert verified(folder_of(tmp_path / "doubling", package(pickled(None))))["test_data"]["right"] is True


def test_changed_files_are_not_run(tmp_path: Path) -> None:
    files = package(pickled())
    mark = tmp_path / "it ran"
    files["0/code/small/model.py"] = f"open({str(mark)!r}, 'w')\n{CODE}".encode()
    found = verified(folder_of(tmp_path / "doubling", files), status=1)
    assert found["manifest"]["matches"] is False and "model.py" in found["manifest"]["problem"]
    assert found["test_data"]["right"] is None and not mark.exists()


def test_what_is_not_there_is_no_failure(tmp_path: Path) -> None:
    files = package()
    del files["manifest.json"]
    found = verified(folder_of(tmp_path / "doubling", files))
    assert found["manifest"]["present"] is False and found["test_data"]["present"] is False
    lines = opexec_here("verify", tmp_path / "doubling").out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "none", "none"]


def test_test_data_that_does_not_fit_the_specs_is_told(tmp_path: Path) -> None:
    found = verified(folder_of(tmp_path / "doubling", package(pickled((X * 2).astype("i8")))))["test_data"]
    assert found["right"] is True and "the dtype must be float32" in found["misfits"][0]


@pytest.mark.parametrize("columns", [100, 60])
def test_it_fits_the_terminal(tmp_path: Path, columns: int) -> None:
    lines = on_terminal(columns, "verify", folder_of(tmp_path / "doubling", package(pickled(X * 3))))
    assert max(map(len, lines)) <= columns and any(line.startswith("WRONG") for line in lines)


# ---- the pickle


class Marks:
    """Something that, when it is unpickled, writes down in which process."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.mark)!r}, 'w').write(str(__import__('os').getpid()))",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "read by"
    path = folder_of(tmp_path / "doubling", package(pickled(more=Marks(mark))))
    with (
        load(path) as model,
        pytest.raises(ModelError, match=r"test_data\.pkl asks for builtins\.\w+, which"),
    ):
        read_test_data(read(path), model.workers[0].interpreter)
    (line,) = verified(path, status=1)["test_data"]["wrong"]
    assert "test_data.pkl asks for builtins." in line
    assert not mark.exists()  # neither here nor in the worker


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", pickle.dumps([1]), pickle.dumps({"test_input": 3}), pickled()[:-9]]
)
def test_a_broken_pickle_is_one_error(tmp_path: Path, content: bytes) -> None:
    (line,) = verified(folder_of(tmp_path / "doubling", package(content)), status=1)["test_data"]["wrong"]
    assert "test_data.pkl" in line and "Traceback" not in line


def test_the_pickle_that_python_2_wrote_is_read() -> None:
    """That of a published package: protocol 0, with byte strings for names."""
    published = read(PUBLISHED / "torchscript_addition_model_single_output")
    inputs, outputs = read_test_data(published, sys.executable)
    assert outputs is not None and outputs["out"].tolist() == [0, 2, 4, 6, 8]
    assert inputs["x"].tolist() == inputs["y"].tolist() == [0, 1, 2, 3, 4]


def test_without_test_data_there_is_nothing_to_try(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "doubling", package())
    with load(path, check=False) as model, pytest.raises(OpexecError, match=r"test_data\.pkl: is missing"):
        try_package(read(path), model)
