"""Every form in which Neuropod's packages come, each built here by hand, byte by byte, and run. Those that need a framework are in
tests/frameworks/test_package_layouts.py.
"""

from __future__ import annotations

import io
import json
import pickle
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Model, ModelError, SpecError
from opexec.neuropod.loader import load_neuropod
from opexec.package import read
from opexec.packages.test_data import check_answers, read_test_data

from .package_samples import folder_of, manifest_of, zip_of

X = np.arange(6, dtype=np.float32).reshape(2, 3)
ADDS = """
    from . import helper

    def get_model(data_root):
        assert data_root.endswith("data")
        return helper.add
    """
HELPER = "def add(x, y):\n    return {'out': x + y}\n"


def spec(name: str, dtype: str = "float32", shape: Any = (None, "n")) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": None if shape is None else list(shape)}


def python_package(code: str = ADDS, more: dict[str, bytes] | None = None, **config: Any) -> dict[str, bytes]:
    """The files of a package as old as they come: none of the keys that Neuropod added later. `config` adds and replaces keys."""
    content = {
        "name": "addition_model",
        "platform": "python",
        "input_spec": [spec("x"), spec("y")],
        "output_spec": [spec("out")],
        **config,
    }
    return {
        "config.json": json.dumps(content).encode(),
        "0/config.json": b'{"entrypoint_package": "addition_model.main", "entrypoint": "get_model"}',
        "0/code/addition_model/__init__.py": b"",
        "0/code/addition_model/helper.py": HELPER.encode(),
        "0/code/addition_model/main.py": textwrap.dedent(code).encode(),
        **(more or {}),
    }


def with_folders(path: Path, files: dict[str, bytes]) -> Path:
    """As `zip -r` writes it: folders are entries too."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("0/", "0/code/", "0/code/addition_model/"):
            archive.writestr(name, b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


class Pipe(io.RawIOBase):
    """Writes to a file, and cannot go back in it."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self._file.write(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def streamed(path: Path, files: dict[str, bytes]) -> Path:
    """As it is written to a pipe: the sizes come after the contents."""
    with Pipe(path) as pipe, zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def with_large_sizes(path: Path, files: dict[str, bytes]) -> Path:
    """As it is written where nobody knows how large the files will be; and with a comment."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"of somebody's"
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    return path


FORMS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folder": lambda place, files: folder_of(place / "model", files),
    "stored": lambda place, files: zip_of(place / "model.zip", files, zipfile.ZIP_STORED),
    "deflated": lambda place, files: zip_of(place / "model.neuropod", files),
    "no ending": lambda place, files: zip_of(place / "model", files),
    "with folders": lambda place, files: with_folders(place / "model.zip", files),
    "streamed": lambda place, files: streamed(place / "model.zip", files),
    "zip64": lambda place, files: with_large_sizes(place / "model.zip", files),
}


@pytest.mark.parametrize("manifest", [False, True], ids=["no manifest", "manifest"])
@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, manifest: bool, tmp_path: Path) -> None:
    # Two of them in a worker; that is told of a folder, whatever the form.
    isolation = "process" if (form, manifest) in (("folder", False), ("deflated", True)) else "none"
    files = python_package()
    if manifest:
        files["manifest.json"] = manifest_of(files)
    path = FORMS[form](tmp_path, files)
    with load_neuropod(str(path), visible_gpu=None, isolation=isolation) as neuropod:
        assert (neuropod.name, neuropod.platform) == ("addition_model", "python")
        assert neuropod.inputs == [spec("x"), spec("y")] and neuropod.outputs == [spec("out")]
        np.testing.assert_array_equal(neuropod.infer({"x": X, "y": X})["out"], 2 * X)


@pytest.mark.parametrize(
    "config",
    [
        {"custom_ops": []},
        {"input_tensor_device": {"x": "GPU", "y": "CPU"}},
        {"input_tensor_device": {}},
        {"platform_version_semver": "*"},
        {"platform_version_semver": ">= 3.0"},
        {"platform_version_semver": "3.x"},
        {"of_a_later_version": {"a": [1]}},
        {"platform": "pytorch"},
    ],
    ids=str,
)
def test_keys_of_the_config(config: dict[str, Any], tmp_path: Path) -> None:
    with in_process(tmp_path, **config) as model:
        np.testing.assert_array_equal(model.infer({"x": X, "y": X})["out"], 2 * X)


def test_the_order_of_the_keys_does_not_matter(tmp_path: Path) -> None:
    files = python_package(custom_ops=[], input_tensor_device={"x": "GPU", "y": "GPU"})
    for name in ("config.json", "0/config.json"):
        content = json.loads(files[name])
        files[name] = json.dumps(dict(reversed(content.items())), indent=4).replace("\n", "\r\n").encode()
    with opexec.load(folder_of(tmp_path / "model", files), isolation="none") as model:
        np.testing.assert_array_equal(model.infer({"x": X, "y": X})["out"], 2 * X)


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_code_that_lies_in_the_root(isolation: str, tmp_path: Path) -> None:
    """As Neuropod's packager leaves it, which puts an ``__init__.py`` there too."""
    code = """
        import helper
        from deeper.still import names
        from . import helper as the_same

        def get_model(data_root):
            assert the_same is helper and names.KNOWN
            return helper.add
        """
    files = {name: content for name, content in python_package().items() if not name.startswith("0/code/")}
    files["0/config.json"] = b'{"entrypoint": "get_model", "entrypoint_package": "addition_model"}'
    for name in ("__init__", "deeper/__init__", "deeper/still/__init__"):
        files[f"0/code/{name}.py"] = b""
    files["0/code/addition_model.py"] = textwrap.dedent(code).encode()
    files["0/code/helper.py"] = HELPER.encode()
    files["0/code/deeper/still/names.py"] = b"KNOWN = True\n"
    path = zip_of(tmp_path / "model.zip", files)
    with load_neuropod(path, visible_gpu=None, isolation=isolation) as neuropod:
        np.testing.assert_array_equal(neuropod.infer({"x": X, "y": X})["out"], 2 * X)


def in_process(place: Path, code: str = ADDS, more: dict[str, bytes] | None = None, **config: Any) -> Model:
    """In this process: what a call does is the same."""
    return opexec.load(folder_of(place / "model", python_package(code, more, **config)), isolation="none")


NUMBERS = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize(
    "named, dtype", [(name, name) for name in NUMBERS] + [("double", "float64"), ("float", "float64")]
)
def test_dtypes(named: str, dtype: str, tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "input_spec": [spec("x", named), spec("y", named)],
        "output_spec": [spec("out", named)],
    }
    with in_process(tmp_path, **config) as model:
        assert [one.dtype for one in (*model.inputs, *model.outputs)] == [dtype] * 3
        out = model.infer({"x": X.astype(dtype), "y": X.astype(dtype)})["out"]
        assert out.dtype == dtype and (out == 2 * X).all()
        with pytest.raises(SpecError, match="input 'x'"):
            model.infer({"x": X.astype("complex64"), "y": X.astype(dtype)})


def test_texts_of_any_rank(tmp_path: Path) -> None:
    code = """
        import numpy as np

        def get_model(data_root):
            def model(x, y):
                assert x.dtype.kind == "U", x.dtype
                return {"out": np.asarray(np.char.add(x, y))}
            return model
        """
    texts = [spec("x", "string", None), spec("y", "string", None)]
    path = folder_of(
        tmp_path / "model",
        python_package(code, input_spec=texts, output_spec=[spec("out", "string", None)]),
    )
    with load_neuropod(path, visible_gpu=None) as neuropod:
        shapes: list[tuple[int, ...]] = [(), (3,), (2, 2), (0,)]
        for shape in shapes:
            given = np.full(shape, "b\u00fc \U0001f600")
            out = neuropod.infer({"x": given, "y": np.full(shape, "!")})["out"]
            assert out.dtype.kind == "U" and out.shape == shape and (out == np.char.add(given, "!")).all()


def test_symbols_and_open_sizes(tmp_path: Path) -> None:
    config = {
        "input_spec": [spec("x", shape=(None, "n")), spec("y", shape=None)],
        "output_spec": [spec("out", shape=("n", None))],
    }
    code = """
        def get_model(data_root):
            return lambda x, y: {"out": (x + y).T}  # not contiguous
        """
    with in_process(tmp_path, code, **config) as model:
        np.testing.assert_array_equal(model.infer({"x": X, "y": X})["out"], 2 * X.T)
        np.testing.assert_array_equal(model.infer({"x": X, "y": np.float32(1)})["out"], X.T + 1)
        with pytest.raises(SpecError, match="input 'x'"):
            model.infer({"x": X[0], "y": X})
        with pytest.raises(SpecError, match="output 'out'.* axis 0 is 3, but n is 1 by the inputs"):
            model.infer({"x": X[:, :1], "y": X})


OPTIONAL = """
    class Module:
        def forward(self, x, y=None):
            return {"out": x if y is None else x + y}

        def __call__(self, *args, **kwargs):  # as torch.nn.Module is called
            return self.forward(*args, **kwargs)

    def get_model(data_root):
        return Module()%s
    """


@pytest.mark.parametrize(
    ("called", "kind", "message"),
    [
        (".forward", SpecError, "input 'x' is missing"),
        # What takes any keywords asks for what it needs itself.
        ("", ModelError, "missing 1 required positional argument: 'x'"),
    ],
    ids=["by name", "any keywords"],
)
def test_optional_arguments(called: str, kind: type[Exception], message: str, tmp_path: Path) -> None:
    with in_process(tmp_path, OPTIONAL % called) as model:
        np.testing.assert_array_equal(model.infer({"x": X})["out"], X)
        np.testing.assert_array_equal(model.infer({"x": X, "y": X})["out"], 2 * X)
        with pytest.raises(kind, match=message):
            model.infer({"y": X})


def test_a_python_model_has_no_options(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "model", python_package())
    with pytest.raises(opexec.LoadError, match="the python platform knows no option 'colour'"):
        opexec.load(path, isolation="none", options={"colour": 1})
    with opexec.load(path, isolation="none", threads=1) as model:  # by environment variables, in a worker
        np.testing.assert_array_equal(model.infer({"x": X, "y": X})["out"], 2 * X)


@pytest.mark.parametrize(
    "returned, message",
    [
        ("[x]", "expected a dict of numpy arrays"),
        ("{'out': [1.0]}", "output 'out' is of type builtins.list; expected a numpy array"),
        ("{'out': None}", "output 'out' is of type builtins.NoneType"),
        ("{'out': x.astype('float64')}", "output 'out'"),
        ("{'other': x}", "out"),
    ],
)
def test_answers_that_are_none(returned: str, message: str, tmp_path: Path) -> None:
    code = f"def get_model(data_root):\n    return lambda x, y: {returned}\n"
    with in_process(tmp_path, code) as model, pytest.raises((ModelError, SpecError), match=message):
        model.infer({"x": X, "y": X})


def test_some_of_the_outputs_and_no_checks(tmp_path: Path) -> None:
    code = "def get_model(data_root):\n    return lambda x, y: {'sum': x + y, 'product': x * y}\n"
    files = python_package(code, output_spec=[spec("sum"), spec("product")])
    path = folder_of(tmp_path / "model", files)
    with opexec.load(path) as model:
        assert list(model.infer({"x": X, "y": X}, outputs=["product"])) == ["product"]
    with opexec.load(path, check=False, isolation="none") as model:
        assert model.infer({"x": X[0], "y": X[0].astype(np.float64)})["sum"].dtype == np.float64


def test_a_hundred_inputs(tmp_path: Path) -> None:
    names = [f"input_{number}" for number in range(100)]
    code = "def get_model(data_root):\n    return lambda **given: {'out': sum(given[name] for name in sorted(given))}\n"
    inputs = [spec(name, shape=(10, 5)) for name in names]
    with in_process(tmp_path, code, input_spec=inputs, output_spec=[spec("out", shape=(10, 5))]) as model:
        answer = model.infer({name: np.full((10, 5), index, np.float32) for index, name in enumerate(names)})
        assert (answer["out"] == 4950).all()


def test_ops_come_first_on_the_import_path(tmp_path: Path) -> None:
    code = """
        import triple_op

        def get_model(data_root):
            return lambda x, y: {"out": triple_op.triple(x)}
        """
    ops = {"0/ops/triple_op.py": b"def triple(x):\n    return 3 * x\n"}
    files = python_package(code, ops, custom_ops=["triple_op.py"])
    path = folder_of(tmp_path / "model", files)
    with load_neuropod(path, visible_gpu=None) as neuropod:
        np.testing.assert_array_equal(neuropod.infer({"x": X, "y": X})["out"], 3 * X)
    with pytest.raises(opexec.LoadError, match="triple_op"):
        load_neuropod(path, visible_gpu=None, load_custom_ops=False)


def test_data_and_absolute_imports(tmp_path: Path) -> None:
    code = """
        import os
        import addition_model.helper
        from addition_model import helper

        def get_model(data_root):
            assert helper is addition_model.helper
            with open(os.path.join(data_root, "assets", "factor.txt")) as file:
                factor = int(file.read())
            return lambda x, y: {"out": factor * helper.add(x, y)["out"]}
        """
    with in_process(tmp_path, code, {"0/data/assets/factor.txt": b"5"}) as model:
        np.testing.assert_array_equal(model.infer({"x": X, "y": X})["out"], 10 * X)


def test_a_lock_of_requirements_is_set_up_first(tmp_path: Path) -> None:
    code = """
        import six

        def get_model(data_root):
            assert six.__version__ == "1.16.0"
            return lambda x, y: {"out": x + y}
        """
    lock = b"#\n# written by pip-compile\n#\nsix==1.16.0  # via -r requirements.in\n"
    path = zip_of(tmp_path / "model.zip", python_package(code, {"0/requirements.lock": lock}))
    with load_neuropod(path, visible_gpu=None) as neuropod:
        np.testing.assert_array_equal(neuropod.infer({"x": X, "y": X})["out"], 2 * X)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_its_test_data_are_run(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"test_input": {"x": X, "y": X}, "test_output": {"out": 2 * X}}, protocol)
    path = zip_of(tmp_path / "model.zip", python_package(more={"test_data.pkl": content}))
    inputs, expected = read_test_data(read(path))
    assert expected is not None
    with opexec.load(path, isolation="none") as model:
        assert check_answers(model, inputs, expected) == []
        assert check_answers(model, inputs, {"out": 3 * X}) != []
