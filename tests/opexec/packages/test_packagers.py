"""Packagers and opexec.neuropod, with models in Python; the other platforms' are in tests/frameworks/test_packages.py."""

from __future__ import annotations

import json
import os
import pickle
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Environment, FrameworkNotFound, LoadError, ModelError, SpecError, packagers
from opexec.environments import store as environment_store
from opexec.errors import PackageError
from opexec.neuropod import loader
from opexec.neuropod import packagers as neuropod_packagers
from opexec.package import read
from opexec.packages.draft import repack
from opexec.packages.test_data import check_answers, read_test_data
from tests.opexec.packages.package_samples import folder_of, sample

CODE = {
    "mine/main.py": """
        import os
        import numpy as np
        from . import scaling
        from .deeper.names import exclaimed

        def make(data_path):
            with open(os.path.join(data_path, "factor.txt")) as file:
                factor = np.float32(file.read())

            def model(x, s, wrong=None):
                if wrong is not None:
                    return {"y": x, "t": ["a list"]}
                assert s.dtype.kind == "U", s.dtype
                return {"y": scaling.scaled(x, factor), "t": exclaimed(s)}

            return model
        """,
    "mine/scaling.py": "def scaled(x, factor):\n    return x * factor\n",
    "mine/scaling.pyc": "no code",
    "mine/deeper/names.py": """
        import numpy
        import mine.scaling as absolute
        from mine import scaling

        assert absolute is scaling

        def exclaimed(s):
            return numpy.char.add(s, "!")
        """,
}
SPECS: dict[str, Any] = {
    "input_spec": [
        {"name": "x", "dtype": "float", "shape": ["n"]},
        {"name": "s", "dtype": "string", "shape": ["n"]},
        {"name": "wrong", "dtype": "int64", "shape": []},
    ],
    "output_spec": [
        {"name": "y", "dtype": "double", "shape": ["n"]},
        {"name": "t", "dtype": "string", "shape": ["n"]},
    ],
}
SPECS["input_spec"][0]["dtype"] = "float32"
SPECS["output_spec"][0]["dtype"] = "float32"
X, S = np.arange(3, dtype=np.float32), np.array(["a", "b\u00fc", ""])


def arguments(folder: Path, factor: float = 2, **changes: Any) -> dict[str, Any]:
    """Arguments of create_python_package, for code and data in `folder`."""
    for name, text in CODE.items():
        path = folder / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    (folder / "factor").write_text(str(factor))
    return {
        "model_name": "scaler",
        "data_paths": [{"path": folder / "factor", "packaged_name": "factor.txt"}],
        "code_path_spec": [{"python_root": folder / "code", "dirs_to_package": ["mine"]}],
        "entrypoint_package": "mine.main",
        "entrypoint": "make",
        **SPECS,
        **changes,
    }


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "written"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_python_package_comes_back_as_it_went(as_zip: bool, tmp_path: Path, outside: Path) -> None:
    package = packagers.create_python_package(
        package_path=outside / "scaler",
        package_as_zip=as_zip,
        test_input_data={"x": X, "s": S},
        test_expected_out={"y": 2 * X, "t": np.array(["a!", "b\u00fc!", "!"])},
        input_tensor_device={"x": "CPU"},
        **arguments(tmp_path),
    )
    assert package.is_zip == as_zip and package.has_manifest and package.has_test_data
    assert dict(package.input_tensor_device) == {"x": "CPU", "s": "GPU", "wrong": "GPU"}
    assert "0/code/mine/deeper/__init__.py" in package.files
    assert not [name for name in package.files if name.endswith(".pyc")]
    assert os.listdir(outside) == ["scaler"]
    inputs, expected = read_test_data(package)
    assert expected is not None and inputs["s"].tolist() == S.tolist()
    with opexec.load(package.path) as model:
        assert (model.name, model.platform) == ("scaler", "python")
        assert model.inputs == package.inputs and model.outputs == package.outputs
        assert check_answers(model, inputs, expected) == []
        with pytest.raises(SpecError, match="input 'x' is missing"):
            model.infer({"s": S})
        with pytest.raises(SpecError, match="but n is 3 by axis 0 of input 'x'"):
            model.infer({"x": X, "s": S[:2]})
        with pytest.raises(ModelError, match="output 't' is of type builtins.list; expected a numpy array"):
            model.infer({"x": X, "s": S, "wrong": np.array(1)})
    again = repack(package, outside / "again", as_zip=True)
    third = repack(again, outside / "third", as_zip=True)
    assert again.path.read_bytes() == third.path.read_bytes() and again.hash() == package.hash()


def test_a_wrong_answer_leaves_nothing(tmp_path: Path, outside: Path) -> None:
    with pytest.raises(ValueError, match="output 'y'"):
        packagers.create_python_package(
            package_path=outside / "scaler",
            test_input_data={"x": X, "s": S},
            test_expected_out={"y": 3 * X},
            **arguments(tmp_path),
        )
    assert os.listdir(outside) == []


def test_a_model_that_fails_on_its_test_data_leaves_nothing(tmp_path: Path, outside: Path) -> None:
    with pytest.raises(ValueError, match="expected a numpy array"):
        packagers.create_python_package(
            package_path=outside / "scaler",
            test_input_data={"x": X, "s": S, "wrong": np.array(1)},
            **arguments(tmp_path),
        )
    assert os.listdir(outside) == []


def test_what_cannot_be_packaged_is_refused(tmp_path: Path, outside: Path) -> None:
    (outside / "there").write_text("mine")
    refused = {
        "exists already": {"package_path": outside / "there"},
        "packaged itself": {"package_path": tmp_path / "code" / "mine" / "package"},
        "one of package_path and neuropod_path": {},
        "without test_input_data": {"package_path": outside / "a", "test_expected_out": {"y": X}},
        "default_input_tensor_device": {"package_path": outside / "b", "default_input_tensor_device": "TPU"},
        "platform_version_semver": {"package_path": outside / "c", "platform_version_semver": "new ones"},
        "no file or folder": {"package_path": outside / "d", "data_paths": [{"path": tmp_path / "none"}]},
    }
    for message, changes in refused.items():
        with pytest.raises(ValueError, match=message):
            packagers.create_python_package(**arguments(tmp_path, **changes))
    assert os.listdir(outside) == ["there"]


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_modules_of_equal_names_do_not_collide(isolation: str, tmp_path: Path, outside: Path) -> None:
    paths = []
    for factor in (2, 5):
        folder = tmp_path / str(factor)
        paths.append(
            packagers.create_python_package(
                package_path=outside / str(factor), package_as_zip=False, **arguments(folder, factor)
            ).path
        )
    with (
        opexec.load(paths[0], isolation=isolation) as two,
        opexec.load(paths[1], isolation=isolation) as five,
    ):
        for _ in range(2):
            np.testing.assert_array_equal(two.infer({"x": X, "s": S})["y"], 2 * X)
            np.testing.assert_array_equal(five.infer({"x": X, "s": S})["y"], 5 * X)
    assert not list(outside.rglob("__pycache__"))


def test_an_op_that_is_called_like_a_module_is_refused(tmp_path: Path, outside: Path) -> None:
    good, bad = tmp_path / "my_op.py", tmp_path / "json.py"
    good.write_text("FACTOR = 7\n")
    bad.write_text("")
    given = arguments(tmp_path, custom_ops=[good])
    (tmp_path / "code/mine/scaling.py").write_text(
        "import my_op\ndef scaled(x, factor):\n    return x * factor * my_op.FACTOR\n"
    )
    with opexec.load(packagers.create_python_package(package_path=outside / "good", **given).path) as model:
        np.testing.assert_array_equal(model.infer({"x": X, "s": S})["y"], 14 * X)
    package = packagers.create_python_package(
        package_path=outside / "bad", **{**given, "custom_ops": [good, bad]}
    )
    with pytest.raises(LoadError, match=r"custom op 'json\.py' is called like a module"):
        opexec.load(package.path)


def test_the_range_decides_where_it_runs(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = packagers.create_python_package(
        package_path=outside / "old", **arguments(tmp_path, platform_version_semver="3.8.x")
    )
    monkeypatch.setattr(environment_store, "names", list)
    for isolation in ("process", "none"):
        with pytest.raises(
            FrameworkNotFound, match=r"needs [Pp]ython '3\.8\.x'.* (has|python) 3\.1\d\."
        ) as caught:
            opexec.load(package.path, isolation=isolation)
        assert (caught.value.file, caught.value.field) == ("config.json", "platform_version_semver")
    with opexec.load(package.path, env=Environment("3.8")) as model:
        assert model.workers[0].python.startswith("3.8.")
        np.testing.assert_array_equal(model.infer({"x": X, "s": S})["y"], 2 * X)
    own = packagers.create_python_package(
        package_path=outside / "own",
        environment=Environment("3.8", env_vars={"OF_THE_PACKAGE": "1"}),
        test_input_data={"x": X, "s": S},
        test_expected_out={"y": 2 * X},
        **arguments(tmp_path, platform_version_semver="3.8.x"),
    )
    with opexec.load(own.path, env=Environment("3.9")) as model:  # the package's own comes first
        assert model.workers[0].python.startswith("3.8.")


def test_a_named_environment_runs_what_only_it_can(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = packagers.create_python_package(
        package_path=outside / "old", **arguments(tmp_path, platform_version_semver="3.8.x")
    )
    environments = {"a": Environment("3.7", ["numpy"]), "b": Environment("3.8")}
    homes = {name: environment.resolve().parents[2] for name, environment in environments.items()}
    cache = tmp_path / "cache"
    cache.mkdir()
    # Environments that other tests have built already, under names of its own.
    (cache / "environments").symlink_to(homes["a"].parent)
    monkeypatch.setenv("OPEXEC_CACHE", str(cache))
    for name, environment in environments.items():
        python = cache / "environments" / homes[name].name / "venv/bin/python"
        environment_store.save(name, environment.request(), python)
    with opexec.load(package.path) as model:
        assert model.workers[0].interpreter == str(python)
        np.testing.assert_array_equal(model.infer({"x": X, "s": S})["y"], 2 * X)


@pytest.mark.parametrize("isolation", ["process", "none"])
@pytest.mark.parametrize(
    ("platform", "versions", "field", "said"),
    [
        ("tensorrt", "*", "platform", r"needs tensorrt '\*'.* interpreter .* has none\. "),
        ("onnx", "99.x", "platform_version_semver", r"needs onnxruntime '99\.x'.* has \d+\.\d+"),
    ],
)
def test_a_package_whose_framework_is_nowhere(
    platform: str,
    versions: str,
    field: str,
    said: str,
    isolation: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment_store, "names", list)
    files = sample(platform=platform, platform_version_semver=versions) | {
        "0/config.json": b'{"model": "net.engine"}',
        "0/data/net.engine": b"",
    }
    path = folder_of(tmp_path / "engine", files)
    with pytest.raises(
        FrameworkNotFound, match=rf"config\.json: {field}: {said}.*env=Environment\("
    ) as caught:
        opexec.load(path, isolation=isolation)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.package, error.file, error.field) == (str(path), "config.json", field)
        assert (error.stage, error.failures, str(error)) == ("load", {}, str(caught.value))
    with pytest.raises(LoadError):
        opexec.load(path, isolation=isolation)
    with pytest.raises(RuntimeError):  # as Neuropod's
        loader.load_neuropod(path, visible_gpu=None, isolation=isolation)


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_what_a_models_own_code_lacks_is_no_missing_framework(
    isolation: str, tmp_path: Path, outside: Path
) -> None:
    given = arguments(tmp_path)
    (tmp_path / "code/mine/main.py").write_text("import absent_module\n")
    package = packagers.create_python_package(package_path=outside / "lacking", **given)
    with pytest.raises(LoadError, match="ModuleNotFoundError.*absent_module") as caught:
        opexec.load(package.path, isolation=isolation)
    assert not isinstance(caught.value, PackageError)


def test_requirements_are_locked_when_it_is_packaged(tmp_path: Path, outside: Path) -> None:
    package = packagers.create_python_package(
        package_path=outside / "locked",
        requirements="packaging>=20\n",
        test_input_data={"x": X, "s": S},
        **arguments(tmp_path),
    )
    assert package.requirements_lock is not None and "packaging==" in package.requirements_lock
    with opexec.load(package.path) as model:
        assert "environments" in str(model.workers[0].interpreter)


@pytest.mark.parametrize("as_zip", [True, False])
def test_neuropods_api(as_zip: bool, tmp_path: Path, outside: Path) -> None:
    path = outside / "neuropod"
    neuropod_packagers.create_python_neuropod(
        neuropod_path=str(path),
        package_as_zip=as_zip,
        test_input_data={"x": X, "s": S},
        **arguments(tmp_path),
    )
    with loader.load_neuropod(str(path), visible_gpu=None) as neuropod:
        assert (neuropod.name, neuropod.platform) == ("scaler", "python")
        assert neuropod.inputs == SPECS["input_spec"] and neuropod.outputs == SPECS["output_spec"]
        answer = neuropod.infer({"x": X, "s": S})
        assert answer["t"].dtype.kind == "U" and answer["t"].tolist() == ["a!", "b\u00fc!", "!"]
        with pytest.raises(ValueError, match="input 'x'"):
            neuropod.infer({"x": X.astype(np.int32), "s": S})
    with pytest.raises(ValueError, match="exists already"):
        neuropod_packagers.create_python_neuropod(neuropod_path=path, **arguments(tmp_path))


def test_a_broken_package_is_named(tmp_path: Path, outside: Path) -> None:
    package = packagers.create_python_package(package_path=outside / "whole", **arguments(tmp_path))
    cut = outside / "cut.zip"
    cut.write_bytes(package.path.read_bytes()[:-40])
    with pytest.raises(PackageError):
        opexec.load(cut)
    folder = outside / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"platform": "python"}))
    with pytest.raises(PackageError) as caught:
        opexec.load(folder)
    assert caught.value.file == "config.json"
    assert read(package.path).platform == "python"
