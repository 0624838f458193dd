"""What a package says is read whole and checked, from a folder and from a zip alike."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import opexec
from opexec.environment import Environment
from opexec.errors import OpexecError, PackageError
from opexec.package import Package, is_package, read
from opexec.packages.config import PLATFORMS
from opexec.packages.environment import PackageEnvironment
from opexec.spec import TensorSpec

from .package_samples import CONFIG, PUBLISHED, folder_of, manifest_of, sample, zip_of


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("OPEXEC_CACHE", str(path))
    return path


@pytest.fixture(params=["folder", "zip"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Writes files as a package of either form, and returns its path."""
    if request.param == "folder":
        return lambda files: folder_of(tmp_path / "package", files)
    return lambda files: zip_of(tmp_path / "package.zip", files)


def test_the_published_packages_are_read() -> None:
    read_packages = {path.name: read(path) for path in PUBLISHED.iterdir()}
    graph = read_packages["tf_addition_model"]
    two = (None, None)
    assert (graph.name, graph.platform) == ("addition_model", "tensorflow")
    assert graph.inputs == (TensorSpec("x", "float32", two), TensorSpec("y", "float32", two))
    assert graph.outputs == (TensorSpec("out", "float32", two),)
    assert graph.platform_config["node_name_mapping"]["out"] == "some_namespace/out:0"
    assert graph.platform_config["init_op_names"] == []  # {} in the file
    assert dict(graph.input_tensor_device) == {"x": "GPU", "y": "GPU"}
    assert "1.15.5" in graph.versions and "2.21.0" in graph.versions
    assert not graph.has_test_data and not graph.has_manifest and graph.custom_ops == ()
    single = read_packages["torchscript_addition_model_single_output"]
    assert single.has_test_data and single.inputs[2] == TensorSpec("optional", "string", ("batch_size",))
    assert single.platform_config == {} and single.environment_arguments() is None
    strings = read_packages["torchscript_strings_model"]
    assert {spec.dtype for spec in strings.inputs + strings.outputs} == {"string"}


def test_folder_and_zip_are_one_package(tmp_path: Path) -> None:
    for source in PUBLISHED.iterdir():
        files = {
            path.relative_to(source).as_posix(): path.read_bytes()
            for path in source.rglob("*")
            if path.is_file()
        }
        folder, packed = read(source), read(zip_of(tmp_path / f"{source.name}.zip", files))
        assert not folder.is_zip and packed.is_zip
        assert folder.config == packed.config and folder.files == packed.files
        assert hash(folder.config) == hash(packed.config)
        assert folder.hash() == packed.hash()
        expected = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
        assert folder.hash() == hashlib.sha256(expected.encode()).hexdigest()
        assert folder.archive_hash() is None
        assert packed.archive_hash() == hashlib.sha256(packed.path.read_bytes()).hexdigest()
        unpacked = packed.folder()
        assert {
            path.relative_to(unpacked).as_posix(): path.read_bytes()
            for path in unpacked.rglob("*")
            if path.is_file()
        } == files
        assert folder.folder() == source


@pytest.mark.parametrize(
    "files, check",
    [
        (sample(platform="torch") | {"0/config.json": b'{"model": "model.pt", "more": 1}'}, {"platform_config": {"model": "model.pt", "more": 1}}),
        (sample(platform="caffe2") | {"0/data/net/a.pb": b"", "0/config.json": b'{"model": "net"}'}, {"platform": "caffe2"}),
        (sample(platform="keras") | {"0/config.json": b'{"entrypoint_package": "net.main", "entrypoint": "make"}'}, {}),
        (sample(custom_ops=["op.so"]) | {"0/ops/op.so": b"ELF"}, {"custom_ops": ("op.so",)}),
        (
            sample(input_tensor_device={"x": "CPU"}),
            {"input_tensor_device": {"x": "CPU", "y": "GPU"}},
        ),
        (sample(platform_version_semver="> 1.13.1"), {"platform_version_semver": "> 1.13.1"}),
        (sample(input_spec=[]), {"inputs": ()}),
        (
            sample(platform="tensorflow") | {"0/data/savedmodel/saved_model.pb": b""},
            {"platform_config": {"node_name_mapping": {}, "init_op_names": []}},
        ),
        (
            sample(platform="tensorflow")
            | {
                "0/data/model.pb": b"",
                "0/config.json": b'{"node_name_mapping": {"x": "a", "y": "b", "out": "c"}, "init_op_names": ["init"], "more": 1}',
            },
            {
                "platform_config": {
                    "node_name_mapping": {"x": "a", "y": "b", "out": "c"},
                    "init_op_names": ["init"],
                    "more": 1,
                }
            },
        ),
        (
            sample(platform="pytorch") | {"0/config.json": b'{"entrypoint_package": "m", "entrypoint": "f"}'},
            {"platform": "python"},
        ),
        (sample() | {"config.json": b"\xef\xbb\xbf" + sample()["config.json"]}, {}),
        (sample() | {"0/requirements.lock": b"six==1.16.0  # via x\n"}, {"requirements_lock": "six==1.16.0  # via x\n"}),
    ],
)  # fmt: skip
def test_every_variant_of_the_layout(write: Any, files: dict[str, bytes], check: dict[str, Any]) -> None:
    package = read(write(files))
    for name, expected in check.items():
        found = getattr(package, name)
        assert (dict(found) if name == "input_tensor_device" else found) == expected
    assert is_package(package.path)


def test_dtypes_get_their_canonical_names_and_a_null_shape_is_not_checked(write: Any) -> None:
    package = read(write(sample()))
    assert package.inputs == (
        TensorSpec("x", "float32", ("n", None, 3)),
        TensorSpec("y", "float64", None),
    )


def test_a_zip_may_list_its_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for folder in ("0/", "0/data/"):
            archive.writestr(folder, b"")
        for name, content in sample().items():
            archive.writestr(name, content)
    assert set(read(tmp_path / "p.zip").files) == set(sample())
    assert read(tmp_path / "p.zip").data_folder().is_dir()


# ---- what is wrong is said with its file and field


@pytest.mark.parametrize(
    "changes, field, message",
    [
        ({"name": None}, "name", "is missing"),
        ({"name": 3}, "name", "expected a text"),
        ({"name": ""}, "name", "expected a text"),
        ({"platform": None}, "platform", "is missing"),
        ({"platform": "mxnet"}, "platform", "expected one of tensorflow, .*, got 'mxnet'"),
        ({"platform": ["python"]}, "platform", "expected a text"),
        ({"input_spec": None}, "input_spec", "is missing"),
        ({"output_spec": {}}, "output_spec", "expected a list, got {}"),
        ({"input_spec": ["x"]}, "input_spec[0]", "expected an object"),
        ({"input_spec": [{"name": "x", "shape": []}]}, "input_spec[0].dtype", "is missing"),
        ({"input_spec": [{"name": "x", "dtype": "float32"}]}, "input_spec[0].shape", "is missing"),
        ({"input_spec": [{"dtype": "float32", "shape": []}]}, "input_spec[0].name", "is missing"),
        ({"input_spec": [{"name": "x", "dtype": "flaot32", "shape": []}]}, "input_spec[0].dtype", "did you mean 'float32'"),
        ({"input_spec": [{"name": "x", "dtype": "object", "shape": []}]}, "input_spec[0].dtype", "Python objects"),
        ({"input_spec": [{"name": "x", "dtype": 4, "shape": []}]}, "input_spec[0].dtype", "expected a text"),
        ({"input_spec": [{"name": "x", "dtype": "int8", "shape": 3}]}, "input_spec[0].shape", "expected a list"),
        ({"input_spec": [{"name": "x", "dtype": "int8", "shape": [0]}]}, "input_spec[0].shape[0]", "positive size"),
        ({"input_spec": [{"name": "x", "dtype": "int8", "shape": [None, -1]}]}, "input_spec[0].shape[1]", "positive size"),
        ({"input_spec": [{"name": "x", "dtype": "int8", "shape": [1.5]}]}, "input_spec[0].shape[0]", "positive size"),
        ({"input_spec": [{"name": "x", "dtype": "int8", "shape": [True]}]}, "input_spec[0].shape[0]", "positive size"),
        ({"input_spec": [{"name": "x", "dtype": "int8", "shape": [2**63]}]}, "input_spec[0].shape[0]", "positive size"),
        ({"input_spec": [{"name": "x", "dtype": "int8", "shape": ["12"]}]}, "input_spec[0].shape", "no symbol"),
        ({"input_spec": [{"name": "x", "dtype": "int8", "shape": [1] * 33}]}, "input_spec[0].shape", "at most 32"),
        ({"input_spec": CONFIG["input_spec"] * 2}, "input_spec", "two input specs are named 'x'"),
        ({"platform_version_semver": "new"}, "platform_version_semver", "range of versions"),
        ({"platform_version_semver": 2}, "platform_version_semver", "range of versions"),
        ({"custom_ops": "op.so"}, "custom_ops", "a list of texts"),
        ({"custom_ops": ["../op.so"]}, "custom_ops[0]", "name of a file in 0/ops"),
        ({"input_tensor_device": {"z": "CPU"}}, "input_tensor_device.z", "is no input; the inputs are 'x', 'y'"),
        ({"input_tensor_device": {"x": "TPU"}}, "input_tensor_device.x", 'expected "CPU" or "GPU"'),
        ({"input_tensor_device": ["x"]}, "input_tensor_device", "expected an object"),
        ({"environment": "3.7"}, "environment", "expected an object"),
        ({"environment": {"python": 3.7}}, "environment.python", 'in quotes, such as "3.10"'),
        ({"environment": {"python": "/usr/bin/python3"}}, "environment.python", "a version or a range"),
        ({"environment": {"requirments": []}}, "environment.requirments", "there is no such key; did you mean 'requirements'"),
        ({"environment": {"requirements": ["six", "=="]}}, "environment.requirements[1]", "PEP 508"),
        ({"environment": {"find_links": ["../wheels"]}}, "environment.find_links[0]", "a folder in the package"),
        ({"environment": {"env_vars": {"A": 1}}}, "environment.env_vars.A", "expected a text"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(write: Any, changes: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(PackageError, match=message) as caught:
        read(write(sample(**changes)))
    assert (caught.value.file, caught.value.field) == ("config.json", field)
    assert caught.value.package in str(caught.value) and isinstance(caught.value, OpexecError)


@pytest.mark.parametrize(
    "files, file, message",
    [
        ({}, "config.json", "is missing; every package has one"),
        ({"model/config.json": b"{}"}, "config.json", "one in the folder 'model'"),
        (sample() | {"config.json": b""}, "config.json", "expected a JSON object"),
        (sample() | {"config.json": b"[1]"}, "config.json", r"expected a JSON object, got \[1\]"),
        (sample() | {"config.json": b'{"name": NaN}'}, "config.json", "NaN is no number of JSON"),
        (sample() | {"config.json": b'{"name": 1e999}'}, "config.json", "expected a JSON object"),
        (sample() | {"config.json": b'{"name": "a", "name": "b"}'}, "config.json", "'name' is there twice"),
        (sample() | {"config.json": b'{"name": "\\ud800"}'}, "config.json", "surrogates"),
        (sample() | {"config.json": b"\xff\xfe\x00"}, "config.json", "expected a JSON object"),
        (sample() | {"config.json": b"[" * 100000}, "config.json", "nested too deeply"),
        (sample() | {"0/config.json": b"7"}, "0/config.json", "expected a JSON object"),
        (sample(platform="python"), "0/config.json", "is missing"),
        (sample(platform="python") | {"0/config.json": b"{}"}, "0/config.json", "is missing"),
        (sample(platform="tensorflow") | {"0/config.json": b'{"node_name_mapping": ["x"]}'}, "0/config.json", "tensor names and node names"),
        (sample(platform="tensorflow") | {"0/config.json": b'{"init_op_names": [1]}'}, "0/config.json", "a list of texts"),
        (sample(platform="tensorflow"), "0/data/model.pb or 0/data/savedmodel/saved_model.pb or 0/data/savedmodel/saved_model.pbtxt", "is missing"),
        ({"config.json": sample()["config.json"]}, "0/data/model.pt", "is missing"),
        (sample(custom_ops=["op.so"]), "0/ops/op.so", "is missing; custom_ops names it"),
        (sample() | {"0/requirements.lock": b"\xff"}, "0/requirements.lock", "expected UTF-8"),
        (sample() | {"0/requirements.lock": b"numpy<2\nsix==\n"}, "0/requirements.lock", "line 2: expected a requirement"),
        (sample() | {"0/requirements.lock": b"--pre\n"}, "0/requirements.lock", "line 1: .* the option --pre"),
        (sample(platform="onnx"), "0/config.json", "is missing; .* where its model is"),
        (sample(platform="onnx") | {"0/config.json": b'{"model": "m.onnx"}'}, "0/data/m.onnx", "is missing; model in 0/config.json names it"),
        (sample(platform="torch") | {"0/config.json": b'{"model": "model.pt", "options": {"state_dict": "w.pt"}}'}, "0/data/w.pt", "is missing; options.state_dict"),
        (sample() | {"manifest.json": b"{}"}, "manifest.json", "is missing"),
        (sample() | {"manifest.json": b'{"manifest_version": 2, "files": {}}'}, "manifest.json", "expected 1, got 2"),
        (sample() | {"manifest.json": b'{"manifest_version": 1, "files": []}'}, "manifest.json", "expected an object"),
        (sample() | {"manifest.json": b'{"manifest_version": 1, "files": {"a": "b"}}'}, "manifest.json", "64 hexadecimal"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named(write: Any, files: dict[str, bytes], file: str, message: str) -> None:
    with pytest.raises(PackageError, match=message) as caught:
        read(write(files or {"other": b""}))
    assert caught.value.file == file


@pytest.mark.parametrize(
    "platform, settings, field, message",
    [
        ("onnx", {}, "model", "is missing"),
        ("onnx", {"model": "../../../model.pt"}, "model", "the name of a file or folder in 0/data"),
        ("onnx", {"model": "/etc/passwd"}, "model", "the name of a file or folder in 0/data"),
        ("onnx", {"entrypoint_package": "m", "entrypoint": "f"}, "model", "is missing"),
        ("torch", {"model": "model.pt", "options": ["state_dict"]}, "options", "expected an object"),
        ("torch", {"model": "model.pt", "options": {"state_dict": "../../x"}}, "options.state_dict", "in 0/data"),
        ("torch", {"entrypoint_package": "m"}, "entrypoint", "is missing"),
        ("python", {"entrypoint_package": "../x", "entrypoint": "f"}, "entrypoint_package", "a module in 0/code"),
        ("onnx", {"model": "model.pt", "inputs": ["x"]}, "inputs", "expected an object"),
        ("onnx", {"model": "model.pt", "inputs": {"z": "Z"}}, "inputs.z", "is not in the specs, which have 'x', 'y'"),
        ("onnx", {"model": "model.pt", "outputs": {"out": 1}}, "outputs", "expected an object"),
        ("sklearn", {"model": "model.pt", "framework": "catboost"}, "framework", "one of sklearn, xgboost, lightgbm"),
        ("tensorflow", {"node_name_mapping": {"x": "a", "y": "b"}}, "node_name_mapping", "a node for 'out'"),
    ],
)  # fmt: skip
def test_a_bad_setting_of_the_platform_is_named(
    write: Any, cache: Path, platform: str, settings: dict[str, Any], field: str, message: str
) -> None:
    files = sample(platform=platform) | {"0/config.json": json.dumps(settings).encode()}
    if platform == "tensorflow":
        files["0/data/model.pb"] = b"graph"
    with pytest.raises(PackageError, match=message) as caught:
        opexec.load(write(files))
    assert (caught.value.file, caught.value.field) == ("0/config.json", field)
    assert not list(cache.iterdir())


def test_what_is_no_package_is_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", Path("/dev/null"), Path(__file__), Path("a\0b")):
        assert not is_package(path)
        with pytest.raises(PackageError):
            read(path)
    keras = zip_of(tmp_path / "m.keras", {"config.json": b'{"class_name": "Model"}', "metadata.json": b"{}"})
    assert not is_package(keras)
    broken = folder_of(tmp_path / "broken", sample(name=3))
    assert is_package(broken)  # it means to be one, and `read` says what is wrong


def test_a_platform_of_the_users_own(write: Any) -> None:
    path = write(sample(platform="mine"))
    assert read(path, platforms=("mine",)).platform == "mine" and "mine" not in PLATFORMS


# ---- manifest


def test_a_manifest_is_verified(write: Any, cache: Path) -> None:
    files = sample()
    package = read(write(files | {"manifest.json": manifest_of(files)}))
    package.verify()
    assert (package.folder() / "0/data/model.pt").read_bytes() == files["0/data/model.pt"]


@pytest.mark.parametrize(
    "listed, message",
    [
        (sample() | {"0/data/model.pt": b"else"}, "changed: '0/data/model.pt'$"),
        (sample() | {"0/data/more": b""}, "missing: '0/data/more'$"),
        ({"config.json": sample()["config.json"]}, "not listed: '0/data/model.pt'$"),
        (
            {"0/data/model.pt": b"", "x": b""},
            "changed: '0/data/model.pt'; missing: 'x'; not listed: 'config.json'$",
        ),
    ],
)
def test_what_a_manifest_does_not_have_is_named(
    write: Any, cache: Path, listed: dict[str, bytes], message: str
) -> None:
    package = read(write(sample() | {"manifest.json": manifest_of(listed)}))
    for check in (package.verify, package.folder):
        with pytest.raises(PackageError, match=message) as caught:
            check()
        assert caught.value.file == "manifest.json"
    assert [path for path in cache.rglob("*") if not path.is_dir()] == []


def test_without_a_manifest_verify_says_so(write: Any) -> None:
    with pytest.raises(PackageError, match=r"manifest\.json: is missing"):
        read(write(sample())).verify()


def test_a_file_changed_after_reading_is_noticed(write: Any) -> None:
    package = read(write(sample()))
    write(sample(name="other"))
    for ask in (package.hash, package.verify, package.folder if package.is_zip else package.hash):
        with pytest.raises(PackageError, match="changed after it was read"):
            ask()


# ---- environment


ASKED = {
    "python": "3.7",
    "requirements": ["tensorflow==1.15.5", "numpy<1.19"],
    "constraints": ["protobuf<3.21"],
    "find_links": ["0/wheels"],
    "extra_index_urls": ["https://example.org/simple"],
    "env_vars": {"TF_CPP_MIN_LOG_LEVEL": "2"},
}


def test_the_environment_is_what_environment_takes(write: Any) -> None:
    package = read(write(sample(environment=ASKED)))
    assert package.environment == PackageEnvironment(
        python="3.7",
        requirements=("tensorflow==1.15.5", "numpy<1.19"),
        constraints=("protobuf<3.21",),
        find_links=("0/wheels",),
        extra_index_urls=("https://example.org/simple",),
        env_vars=(("TF_CPP_MIN_LOG_LEVEL", "2"),),
    )
    assert package.environment is not None and package.environment.to_dict() == ASKED
    folder = package.folder()
    arguments = package.environment_arguments()
    assert arguments == {**ASKED, "find_links": [str(folder / "0/wheels")]}
    environment = Environment(**arguments)
    assert environment.python == "3.7" and dict(environment.env_vars) == ASKED["env_vars"]
    assert PackageEnvironment.of(environment).python == "3.7"


def test_pinned_requirements_join_those_of_the_environment(write: Any) -> None:
    lock = b"--index-url https://example.org/simple\nsix==1.16.0  # via x\n"
    files = sample(environment={"python": "3.8", "requirements": ["numpy"]}) | {"0/requirements.lock": lock}
    arguments = read(write(files)).environment_arguments()
    assert arguments == {
        "python": "3.8",
        "requirements": ["numpy", "six==1.16.0"],
        "index_url": "https://example.org/simple",
    }


def test_a_lock_with_hashes_is_a_lock(write: Any) -> None:
    files = sample() | {"0/requirements.lock": b"six==1.16.0 --hash=sha256:" + b"0" * 64 + b"\n"}
    package = read(write(files))
    assert package.environment_arguments() == {"lock": str(package.folder() / "0/requirements.lock")}


def test_a_lock_that_names_what_is_not_there_is_named(write: Any) -> None:
    package = read(write(sample() | {"0/requirements.lock": b"./wheels/six-1.0-py3-none-any.whl\n"}))
    with pytest.raises(PackageError, match="line 1") as caught:
        package.environment_arguments()
    assert caught.value.file == "0/requirements.lock"


# ---- the rooms


def test_no_pickle_is_read_in_the_caller() -> None:
    folder = Path(opexec.__file__).parent
    rooms = [folder / "package.py", *folder.glob("packages/*.py"), *folder.glob("problem*.py")]
    assert len(rooms) > 10
    for room in rooms:
        for node in ast.walk(ast.parse(room.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & {
                name.partition(".")[0] for name in names
            }
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False


def test_test_data_that_runs_code_is_never_run(write: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    evil = b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
    files = sample() | {"test_data.pkl": evil}
    package = read(write(files | {"manifest.json": manifest_of(files)}))
    package.verify()
    package.hash()
    package.folder()
    assert package.has_test_data and not mark.exists()


def test_importing_opexec_does_not_import_the_parser_of_ranges() -> None:
    program = "import sys, opexec; print('nodesemver' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_a_package_is_a_value(write: Any) -> None:
    path = write(sample())
    first, second = read(path), read(path)
    assert first == second and hash(first) == hash(second)
    assert isinstance(first, Package) and first.size == sum(map(len, sample().values()))
    first.platform_config["added"] = 1
    assert first.platform_config == {}
    with pytest.raises(TypeError):
        first.files["x"] = 1  # type: ignore[index]


def test_json_is_read_as_utf_16_too(write: Any) -> None:
    text = json.dumps(CONFIG).encode("utf-16")
    assert read(write(sample() | {"config.json": text})).name == "adder"
