"""What programs written for Neuropod do, with their imports changed and nothing else; frameworks are in tests/frameworks/package_*_callers.py."""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from opexec import ModelError
from opexec.neuropod import packagers
from opexec.neuropod.loader import NeuropodExecutor, load_neuropod
from opexec.package import read
from opexec.workers.platforms.packaged_ops import distinct
from tests.neuropods import FIVE, packaged, spec


@pytest.fixture(scope="module")
def adder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeuropodExecutor]:
    with load_neuropod(str(packaged(tmp_path_factory.mktemp("adder")))) as neuropod:
        yield neuropod


# ---- packaging


def test_a_package_is_tried_loaded_and_run(tmp_path: Path) -> None:
    expected = {"out": np.arange(5) + np.arange(5)}  # of another dtype than the model's
    path = packaged(tmp_path, test_input_data={"x": FIVE, "y": FIVE}, test_expected_out=expected)
    with load_neuropod(str(path)) as neuropod:
        assert neuropod.name == "addition_model" and neuropod.platform
        shape = ["batch_size"]
        assert neuropod.inputs[:2] == [
            {"name": "x", "dtype": "float32", "shape": shape},
            {"name": "y", "dtype": "float32", "shape": shape},
        ]
        assert neuropod.outputs == [{"name": "out", "dtype": "float32", "shape": shape}]
        np.testing.assert_array_equal(neuropod.infer({"x": FIVE, "y": FIVE})["out"], expected["out"])


@pytest.mark.parametrize("package_as_zip", [True, False])
def test_nothing_is_overwritten(package_as_zip: bool, tmp_path: Path) -> None:
    packaged(tmp_path, package_as_zip=package_as_zip)
    with pytest.raises(ValueError, match="exists already"):
        packaged(tmp_path, package_as_zip=package_as_zip)


def test_a_model_that_raises_is_not_packaged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="as it was asked to") as caught:  # what Neuropod raises
        packaged(tmp_path, test_input_data={"x": FIVE, "fail": np.array(True)})
    assert isinstance(caught.value, ValueError)  # what Neuropod says that it raises
    assert os.listdir(tmp_path) == ["model_code"]


@pytest.mark.parametrize("folder", ["", ".", "./"])
def test_a_whole_root_is_packaged(folder: str, tmp_path: Path) -> None:
    root = tmp_path / "model_code"
    (root / "deeper/still").mkdir(parents=True)
    (root / "deeper/still/names.py").write_text("SUFFIX = 1\n")
    (root / "old.pyc").write_text("")
    code = """
        from deeper.still import names
        from . import adder as itself

        def get_model(data_path):
            return lambda x: {"out": x + names.SUFFIX}
        """
    path = packaged(
        tmp_path,
        code,
        code_path_spec=[{"python_root": root, "dirs_to_package": [folder]}],
        input_spec=[spec("x", None)],
    )
    code_files = sorted(name for name in read(path).files if name.startswith("0/code/"))
    assert code_files == [
        "0/code/adder.py",
        "0/code/deeper/__init__.py",
        "0/code/deeper/still/__init__.py",
        "0/code/deeper/still/names.py",
    ]
    with load_neuropod(path, visible_gpu=None, isolation="none") as neuropod:
        np.testing.assert_array_equal(neuropod.infer({"x": FIVE})["out"], FIVE + 1)


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_two_packages_with_equal_entry_points(isolation: str, tmp_path: Path) -> None:
    code = """
        import numpy as np

        def get_model(data_path):
            return lambda x: {{"out": np.array([{}], np.float32)}}
        """
    specs = {"input_spec": [spec("x", 1)], "output_spec": [spec("out", 1)]}
    one, two = (packaged(tmp_path / str(number), code.format(number), **specs) for number in (1, 2))
    given = {"x": np.zeros(1, np.float32)}
    with (
        load_neuropod(one, isolation=isolation) as first,
        load_neuropod(two, isolation=isolation) as second,
    ):
        assert first.infer(given)["out"][0] == 1 and second.infer(given)["out"][0] == 2
        assert first.infer(given)["out"][0] == 1


def test_equal_contents_give_equal_files(tmp_path: Path) -> None:
    one, two = (packaged(tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_the_zip_is_compressed_as_asked(tmp_path: Path) -> None:
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(packaged(tmp_path / name, zip_compression=method)) as archive:
            assert {entry.compress_type for entry in archive.infolist()} == {method}
    assert read(tmp_path / "stored/test_neuropod").hash() == read(tmp_path / "deflated/test_neuropod").hash()
    with pytest.raises(ValueError, match=r"zip_compression is 14; expected zipfile\.ZIP_STORED"):
        packaged(tmp_path / "other", zip_compression=zipfile.ZIP_LZMA)
    assert os.listdir(tmp_path / "other") == ["model_code"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"input_spec": [{"name": 5, "dtype": "float32", "shape": (1,)}]}, "name"),
        ({"input_spec": [spec("x", True)]}, "shape|size"),
        ({"input_spec": [{"name": "x", "dtype": "float32", "shape": "123"}]}, "shape"),
        ({"input_spec": [spec("x", 1, dtype="no such dtype")]}, "dtype"),
        ({"input_tensor_device": {"x": "TPU"}}, "TPU"),
        ({"input_tensor_device": {"another": "CPU"}}, "another"),
        ({"neuropod_path": "IN_THE_ROOT"}, "python_root"),
    ],
)
def test_a_wrong_config_is_a_value_error(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    if "neuropod_path" in changes:
        changes = {"neuropod_path": tmp_path / "model_code/package"}
    with pytest.raises(ValueError, match=message):
        packaged(tmp_path, **changes)
    assert os.listdir(tmp_path) == ["model_code"]
    assert os.listdir(tmp_path / "model_code") == ["adder.py"]


@pytest.mark.parametrize("given, written", [("init", ["init"]), (["one", "two"], ["one", "two"]), ([], [])])
def test_init_ops_are_one_or_several(given: Any, written: list[str], tmp_path: Path) -> None:
    path = tmp_path / "accumulator"
    packagers.create_tensorflow_neuropod(
        neuropod_path=path,
        package_as_zip=False,
        model_name="accumulator",
        graph_def=b"nobody reads it here",
        node_name_mapping={"x": "scope/in_x:0", "out": "scope/out"},
        init_op_names=given,
        input_spec=[spec("x")],
        output_spec=[spec("out")],
    )
    assert json.loads((path / "0/config.json").read_text())["init_op_names"] == written


def saved_model(folder: Path, signature: str, inputs: list[str], outputs: list[str]) -> Path:
    """A SavedModel that tells its signature and holds nothing else; package_tensorflow_callers.py has whole ones."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    def entry(key: str, value: bytes) -> bytes:
        return field(1, key.encode()) + field(2, value)

    takes, gives = (
        b"".join(field(side, entry(name, b"")) for name in names)
        for side, names in ((1, inputs), (2, outputs))
    )
    graph = field(5, entry("__saved_model_init_op", b"")) + field(5, entry(signature, takes + gives))
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(field(2, graph))
    return folder


@pytest.mark.parametrize(
    "signature, inputs, outputs, message",
    [
        ("serving_default", ["x"], ["out"], r"takes \['x'\]; input_spec has \['x', 'y'\]"),
        ("serving_default", ["x", "y", "z"], ["out"], r"takes \['x', 'y', 'z'\]"),
        ("serving_default", ["x", "y"], ["sum"], r"gives \['sum'\]; output_spec has 'out' too"),
        ("triple", ["x", "y"], ["out"], "'triple'.*expected 'serving_default'"),
        ("serving_default", ["x", "y"], ["more", "out"], None),
    ],
    ids=["missing", "extra", "output", "signature", "right"],
)
def test_the_signature_of_a_saved_model_is_held_against_the_specs(
    signature: str, inputs: list[str], outputs: list[str], message: str | None, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "neuropod_path": tmp_path / "package",
        "model_name": "adder",
        "saved_model_dir": str(saved_model(tmp_path / "saved", signature, inputs, outputs)),
        "input_spec": [spec("x", None), spec("y", None)],
        "output_spec": [spec("out", None)],
    }
    if message is None:
        packagers.create_tensorflow_neuropod(**given)
        assert "0/data/savedmodel/saved_model.pb" in read(tmp_path / "package").files
        return
    with pytest.raises(ValueError, match=message):
        packagers.create_tensorflow_neuropod(**given)
    assert os.listdir(tmp_path) == ["saved"]


def test_specs_of_a_keras_model_have_a_batch_size(tmp_path: Path) -> None:
    def tensor(name: str, *shape: int | None) -> SimpleNamespace:
        return SimpleNamespace(name=name, dtype="float32", shape=shape)

    model = SimpleNamespace(
        inputs=[tensor("x_", None, 2), tensor("y_", None)],
        outputs=[tensor("out_", None, None)],
        save=lambda path: Path(path).write_bytes(b"nobody reads it here"),
    )
    path, mapping = tmp_path / "net", {"x": "x_", "y": "y_", "out": "out_"}
    packagers.create_keras_neuropod(
        None, model, node_name_mapping=mapping, neuropod_path=path, model_name="net"
    )
    package = read(path)
    assert [one.to_dict()["shape"] for one in package.inputs] == [["batch_size", 2], ["batch_size"]]
    assert [one.to_dict()["shape"] for one in package.outputs] == [["batch_size", None]]
    assert [one.name for one in (*package.inputs, *package.outputs)] == ["x", "y", "out"]
    inferred = packagers.infer_keras_input_spec(model), packagers.infer_keras_output_spec(model, mapping)
    assert inferred == (
        [spec("x_", "batch_size", 2), spec("y_", "batch_size")],
        [spec("out", "batch_size", None)],
    )


def test_copies_of_a_custom_op_are_loaded_once(tmp_path: Path) -> None:
    paths = []
    for name, content in (("op.so", b"one"), ("other.so", b"two"), ("op_copy.so", b"one")):
        paths.append(str(tmp_path / name))
        (tmp_path / name).write_bytes(content)
    assert distinct(paths) == paths[:2]


@pytest.mark.parametrize(
    "load_args, asked",
    [
        ({}, {"device": "cuda:0"}),
        ({"visible_gpu": 1}, {"device": "cuda:1"}),
        ({"visible_gpu": None}, {}),
        ({"device": "cpu", "timeout": 9}, {"device": "cpu", "timeout": 9}),
        (
            {"_always_use_native": False, "visible_gpu": None, "load_custom_ops": False},
            {"options": {"load_custom_ops": False}},
        ),
    ],
    ids=str,
)
def test_where_a_package_is_tried(
    load_args: dict[str, Any], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(packagers.packagers, "create_torchscript_package", lambda **more: given.append(more))
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/nvidiactl" or exists(path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    packagers.create_torchscript_neuropod(neuropod_load_args=load_args)
    assert given[0]["load_args"] == asked
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a GPU that this process may not use
    packagers.create_torchscript_neuropod()
    assert given[1]["load_args"] == {}


def test_a_package_is_tried_with_the_arguments_of_load_neuropod(tmp_path: Path) -> None:
    code = """
        import os
        import numpy as np

        def get_model(data_path):
            return lambda x: {"out": np.full(1, int(os.environ["LEVEL"]), np.float32)}
        """
    given: dict[str, Any] = {
        "input_spec": [spec("x", 1)],
        "output_spec": [spec("out", 1)],
        "test_input_data": {"x": FIVE[:1]},
        "persist_test_data": False,
        "neuropod_load_args": {"visible_gpu": None, "env_vars": {"LEVEL": "3"}},
    }
    packaged(tmp_path, code, test_expected_out={"out": np.float32([3])}, **given)
    with pytest.raises(ValueError, match="output 'out'"):
        packaged(tmp_path / "other", code, test_expected_out={"out": np.float32([2])}, **given)


def test_test_data_may_be_bytes(tmp_path: Path) -> None:
    code = "def get_model(data_path):\n    return lambda x: {'out': x}\n"
    specs = [spec(name, None, dtype="string") for name in ("x", "out")]
    packaged(
        tmp_path,
        code,
        input_spec=specs[:1],
        output_spec=specs[1:],
        test_input_data={"x": np.array([b"a", "b\u00fc".encode()])},
        test_expected_out={"out": np.array(["a", "b\u00fc"])},
        persist_test_data=False,
        neuropod_load_args={"isolation": "none"},
    )


# ---- calls


def test_optional_inputs_may_be_left_out(adder: NeuropodExecutor) -> None:
    np.testing.assert_array_equal(adder.infer({"x": FIVE})["out"], FIVE)
    np.testing.assert_array_equal(adder.infer({"x": FIVE, "y": FIVE})["out"], 2 * FIVE)


@pytest.mark.parametrize(
    "changes",
    [
        {"bogus": FIVE},
        {"x": FIVE.astype(np.int32)},
        {"x": FIVE[None]},
        {"y": FIVE[:2]},
        {"x": np.array(["a"] * 5)},
    ],
)
def test_inputs_that_do_not_fit_are_value_errors(changes: dict[str, Any], adder: NeuropodExecutor) -> None:
    with pytest.raises(ValueError, match=repr(next(iter(changes)))):
        adder.infer({"x": FIVE, "y": FIVE, **changes})
    np.testing.assert_array_equal(adder.infer({"x": FIVE})["out"], FIVE)


def test_what_the_model_raises_is_told(adder: NeuropodExecutor) -> None:
    with pytest.raises(ModelError, match="RuntimeError: as it was asked to"):
        adder.infer({"x": FIVE, "fail": np.array(True)})
    np.testing.assert_array_equal(adder.infer({"x": FIVE})["out"], FIVE)


@pytest.mark.parametrize("native", [True, False])
def test_neuropods_choice_of_an_implementation_is_taken(native: bool, tmp_path: Path) -> None:
    code = """
        import numpy as np

        class Accumulator:
            def __init__(self):
                self.total = np.zeros((), np.float32)

            def __call__(self, x):
                self.total += x
                return {"out": self.total}

        def get_model(data_path):
            return Accumulator()
        """
    path = packaged(tmp_path, code, input_spec=[spec("x")], output_spec=[spec("out")])
    with load_neuropod(path, _always_use_native=native, isolation="none") as neuropod:
        np.testing.assert_equal(neuropod.infer({"x": np.float32(2)}), {"out": 2.0})
        np.testing.assert_equal(neuropod.infer({"x": np.float32(4)}), {"out": 6.0})


def test_outputs_that_are_not_contiguous(tmp_path: Path) -> None:
    code = """
        def get_model(data_path):
            return lambda x: {"left": x[:, :2], "right": x[:, 2:], "turned": x.T}
        """
    x = np.arange(16, dtype=np.int64).reshape(4, 4)
    outputs = [(("left", 4, 2), x[:, :2]), (("right", 4, 2), x[:, 2:]), (("turned", 4, 4), x.T)]
    path = packaged(
        tmp_path,
        code,
        input_spec=[spec("x", 4, 4, dtype="int64")],
        output_spec=[spec(*one, dtype="int64") for one, _ in outputs],
    )
    with load_neuropod(path) as neuropod:
        answer = neuropod.infer({"x": x})
    for one, expected in outputs:
        np.testing.assert_array_equal(answer[one[0]], expected)


@pytest.mark.parametrize("words", [["apple", "b\u00e4r", ""], [["a"], ["bc"]]])
def test_texts_go_in_as_unicode_or_bytes(words: Any, tmp_path: Path) -> None:
    code = """
        import numpy as np

        def get_model(data_path):
            def say(x):
                assert x.dtype.kind == "U"
                return {"out": np.char.add(x, "!")}

            return say
        """
    texts = np.array(words)
    shape = [None] * texts.ndim
    specs = [spec(name, *shape, dtype="string") for name in ("x", "out")]
    path = packaged(tmp_path, code, input_spec=specs[:1], output_spec=specs[1:])
    with load_neuropod(path, isolation="none") as neuropod:
        for given in (texts, np.char.encode(texts, "utf-8")):
            out = neuropod.infer({"x": given})["out"]
            assert out.dtype.kind == "U" and out.tolist() == np.char.add(texts, "!").tolist()


def test_calls_from_asyncio(adder: NeuropodExecutor) -> None:
    async def main() -> None:
        buffer = FIVE.copy()
        futures = []
        for _ in range(3):
            futures.append(adder.infer_async({"x": buffer}))
            buffer += 1  # the call has taken its own already
        assert all(isinstance(future, asyncio.Future) for future in futures)
        for number, answer in enumerate(await asyncio.gather(*futures)):
            np.testing.assert_array_equal(answer["out"], FIVE + number)
        with pytest.raises(ValueError, match="'x'"):
            adder.infer_async({"x": FIVE.astype(np.int64)})
        with pytest.raises(ModelError, match="as it was asked to"):
            await adder.infer_async({"x": FIVE, "fail": np.array(True)})

    asyncio.run(main())


def test_a_future_of_a_loop_that_does_not_run_yet(adder: NeuropodExecutor) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        future = adder.infer_async({"x": FIVE, "y": FIVE})
        np.testing.assert_array_equal(loop.run_until_complete(future)["out"], 2 * FIVE)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
