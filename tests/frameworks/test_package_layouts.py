"""Every form in which Neuropod's packages of TensorFlow and TorchScript come, each put together here by hand, and run. Those of Python are in
tests/opexec/packages/test_layouts.py, SavedModels, Union dicts and custom ops in test_packages.py and test_package_ops.py.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec.neuropod.loader import load_neuropod
from tests.frameworks.environments import built
from tests.opexec.packages.package_samples import folder_of, manifest_of, zip_of

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

X = np.arange(6, dtype=np.float32).reshape(2, 3)
TEXT = np.array(["a", "b\u00fc"])


def spec(name: str, dtype: str = "float32", shape: Any = (None, 3)) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": None if shape is None else list(shape)}


def written(kind: str, environment: str, folder: Path) -> Path:
    subprocess.run(
        [built(environment), "-W", "ignore", HERE / "package_models.py", kind, folder],
        check=True,
        capture_output=True,
    )
    return folder


def package(
    platform: str,
    inputs: list[Any],
    outputs: list[Any],
    model: tuple[str, bytes],
    settings: Any,
    **config: Any,
) -> dict[str, bytes]:
    """The files; `settings` of None: no ``0/config.json``, as TorchScript's have none."""
    content = {"name": "model", "platform": platform, "input_spec": inputs, "output_spec": outputs, **config}
    more = {} if settings is None else {"0/config.json": json.dumps(settings).encode()}
    return {"config.json": json.dumps(content).encode(), f"0/data/{model[0]}": model[1], **more}


@pytest.mark.parametrize("environment", ["tensorflow-1.15", "tensorflow-2.21"])
def test_tensorflow(environment: str, tmp_path: Path) -> None:
    graph = (written("layouts_tensorflow", environment, tmp_path) / "model.pb").read_bytes()
    inputs = [spec("x"), spec("text", "string", ["n"])]
    outputs = [spec("out"), spec("said", "string", ["n"])]
    plain = {"x": "scope/in_x", "text": "scope/in_text", "out": "scope/out", "said": "scope/said"}
    numbered = {name: node + ":0" for name, node in plain.items()}
    cases = {
        "plain": ({"node_name_mapping": plain, "init_op_names": ["start"]}, {}),
        "numbered": ({"node_name_mapping": numbered, "init_op_names": ["start"]}, {"custom_ops": []}),
        "devices": (
            {"node_name_mapping": {**plain, "x": numbered["x"]}, "init_op_names": ["start"]},
            {"input_tensor_device": {"x": "GPU", "text": "CPU"}, "platform_version_semver": ">= 1.13.1"},
        ),
    }
    for name, (settings, config) in cases.items():
        files = package("tensorflow", inputs, outputs, ("model.pb", graph), settings, **config)
        path = zip_of(tmp_path / f"{name}.zip", {**files, "manifest.json": manifest_of(files)})
        with load_neuropod(path, visible_gpu=None, env=built(environment)) as neuropod:
            answer = neuropod.infer({"x": X, "text": TEXT})
            np.testing.assert_array_equal(answer["out"], 2 * X)
            assert answer["said"].dtype.kind == "U" and answer["said"].tolist() == ["a!", "b\u00fc!"]
    # Where there is no init op, old packages say `{}`.
    frozen = (tmp_path / "frozen.pb").read_bytes()
    only_text = {name: plain[name] for name in ("text", "said")}
    files = package(
        "tensorflow",
        inputs[1:],
        outputs[1:],
        ("model.pb", frozen),
        {"node_name_mapping": only_text, "init_op_names": {}},
    )
    with opexec.load(folder_of(tmp_path / "old", files), env=built(environment)) as model:
        assert model.infer({"text": TEXT})["said"].tolist() == ["a!", "b\u00fc!"]


@pytest.mark.parametrize("environment", ["torch-1.5", "torch-2.13"])
def test_torchscript(environment: str, tmp_path: Path) -> None:
    folder = written("layouts_torch", environment, tmp_path)
    texts = [spec("x", "string", ["n"]), spec("y", "string", ["n"])]
    said = {"out": ["aa", "b\u00fcb\u00fc"]}
    numbers = [spec("x"), spec("y")]
    given, asked = {"x": X, "y": X}, {"x": TEXT, "y": TEXT}
    cases: dict[str, tuple[list[Any], list[Any], dict[str, Any], dict[str, Any]]] = {
        "TakesDict": (numbers, [spec("out")], given, {"out": 2 * X}),
        "Named": (numbers, [spec("out", shape=None)], given, {"out": 2 * X}),
        "Single": (numbers, [spec("out")], given, {"out": 2 * X}),
        "Texts": (texts, [spec("out", "string", ["n"])], asked, said),
        "TextsSingle": (texts, [spec("out", "string", ["n"])], asked, said),
        "Mixed": ([texts[0], spec("y")], [spec("out")], {"x": TEXT, "y": X}, {"out": 2 * X}),
        "Optional": ([*numbers, spec("unused", "int64", None)], [spec("out")], {"x": X}, {"out": X + 1}),
    }
    for name, (inputs, outputs, arrays, expected) in cases.items():
        model = ("model.pt", (folder / f"{name}.pt").read_bytes())
        files = package("torchscript", inputs, outputs, model, None)
        with load_neuropod(
            zip_of(tmp_path / f"{name}.zip", files), visible_gpu=None, env=built(environment)
        ) as neuropod:
            answer = neuropod.infer(arrays)
            for output, right in expected.items():
                np.testing.assert_array_equal(answer[output], right, err_msg=name)
