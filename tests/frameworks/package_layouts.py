"""The forms in which Neuropod's packages of TensorFlow and TorchScript come, put together here by hand from models of package_models.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from opexec.neuropod.loader import NeuropodExecutor
from tests.opexec.packages.package_samples import folder_of, manifest_of, zip_of

X = np.arange(6, dtype=np.float32).reshape(2, 3)
TEXT = np.array(["a", "b\u00fc"])


class Layout(NamedTuple):
    """A package, and what it answers."""

    path: Path
    inputs: dict[str, Any]
    expected: dict[str, Any]

    def check(self, model: NeuropodExecutor) -> None:
        answer = model.infer(self.inputs)
        for name, right in self.expected.items():
            assert answer[name].dtype.kind == np.asarray(right).dtype.kind
            np.testing.assert_array_equal(answer[name], right, err_msg=f"{self.path.name}, {name}")


def spec(name: str, dtype: str = "float32", shape: Any = (None, 3)) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": None if shape is None else list(shape)}


def files_of(
    platform: str, inputs: list[Any], outputs: list[Any], model: Path, settings: Any, **config: Any
) -> dict[str, bytes]:
    """The files of a package; `settings` of None: no ``0/config.json``, as TorchScript's have none."""
    content = {"name": "model", "platform": platform, "input_spec": inputs, "output_spec": outputs, **config}
    more = {} if settings is None else {"0/config.json": json.dumps(settings).encode()}
    file = "model.pb" if platform == "tensorflow" else "model.pt"
    return {"config.json": json.dumps(content).encode(), f"0/data/{file}": model.read_bytes(), **more}


def tensorflow_layouts(folder: Path) -> Iterator[Layout]:
    """Of the models that `layouts_tensorflow` wrote into `folder`, where they come to lie."""
    inputs = [spec("x"), spec("text", "string", ["n"])]
    outputs = [spec("out"), spec("said", "string", ["n"])]
    given, said = {"x": X, "text": TEXT}, ["a!", "b\u00fc!"]
    plain = {"x": "scope/in_x", "text": "scope/in_text", "out": "scope/out", "said": "scope/said"}
    numbered = {name: node + ":0" for name, node in plain.items()}
    cases: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
        "plain": (plain, {}),
        "numbered": (numbered, {"custom_ops": []}),
        "devices": (
            {**plain, "x": numbered["x"]},
            {"input_tensor_device": {"x": "GPU", "text": "CPU"}, "platform_version_semver": ">= 1.13.1"},
        ),
    }
    for name, (mapping, config) in cases.items():
        settings = {"node_name_mapping": mapping, "init_op_names": ["start"]}
        files = files_of("tensorflow", inputs, outputs, folder / "model.pb", settings, **config)
        path = zip_of(folder / f"{name}.zip", {**files, "manifest.json": manifest_of(files)})
        yield Layout(path, given, {"out": 2 * X, "said": said})
    # Where there is no init op, old packages say `{}`.
    settings = {"node_name_mapping": {name: plain[name] for name in ("text", "said")}, "init_op_names": {}}
    files = files_of("tensorflow", inputs[1:], outputs[1:], folder / "frozen.pb", settings)
    yield Layout(folder_of(folder / "old", files), {"text": TEXT}, {"said": said})
    # What the outputs do not need may be left out of a call, and what has a value of its own.
    names = ["x", "unused", "factor", "out"]
    files = files_of(
        "tensorflow",
        [spec("x"), spec("unused"), spec("factor", shape=())],
        [spec("out")],
        folder / "optional.pb",
        {"node_name_mapping": {name: name for name in names}},
    )
    path = zip_of(folder / "optional.zip", files)
    yield Layout(path, {"x": X}, {"out": 2 * X})
    yield Layout(path, {"x": X, "unused": X[:1], "factor": np.float32(3)}, {"out": 3 * X})


def torchscript_layouts(folder: Path) -> Iterator[Layout]:
    """Of the models that `layouts_torch` wrote into `folder`, where they come to lie."""
    texts = [spec("x", "string", ["n"]), spec("y", "string", ["n"])]
    says = [spec("out", "string", ["n"])]
    said = {"out": ["aa", "b\u00fcb\u00fc"]}
    numbers = [spec("x"), spec("y")]
    given, asked = {"x": X, "y": X}, {"x": TEXT, "y": TEXT}
    cases: dict[str, tuple[list[Any], list[Any], dict[str, Any], dict[str, Any]]] = {
        "TakesDict": (numbers, [spec("out")], given, {"out": 2 * X}),
        "Named": (numbers, [spec("out", shape=None)], given, {"out": 2 * X}),
        "Single": (numbers, [spec("out")], given, {"out": 2 * X}),
        "Texts": (texts, says, asked, said),
        "TextsSingle": (texts, says, asked, said),
        "Mixed": ([texts[0], spec("y")], [spec("out")], {"x": TEXT, "y": X}, {"out": 2 * X}),
        "Optional": ([*numbers, spec("unused", "int64", None)], [spec("out")], {"x": X}, {"out": X + 1}),
    }
    for name, (inputs, outputs, arrays, expected) in cases.items():
        files = files_of("torchscript", inputs, outputs, folder / f"{name}.pt", None)
        yield Layout(zip_of(folder / f"{name}.zip", files), arrays, expected)
