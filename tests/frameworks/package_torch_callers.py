"""Packagers that are given objects of torch. Run by test_package_callers.py, where torch is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opexec
from opexec import packagers
from opexec.neuropod import packagers as neuropod_packagers
from opexec.neuropod.loader import load_neuropod
from tests.frameworks import package_models
from tests.frameworks.package_checks import (
    check_here,
    check_packager,
    check_round_trip,
    check_same_model,
    check_wrong_answer,
)
from tests.frameworks.package_layouts import torchscript_layouts

pytestmark = pytest.mark.timeout(300)  # each starts workers that import torch
X = np.arange(6, dtype=np.float32).reshape(3, 2)


def spec(name: str, *shape: Any) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": list(shape)}


ADDS: dict[str, Any] = {
    "model_name": "adds",
    "input_spec": [spec("x", "n", 2), spec("y", "n", 2)],
    "output_spec": [spec("out", "n", 2)],
    "test_input_data": {"x": X, "y": X},
    "test_expected_out": {"out": 3 * X},
}


class Adds(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.factor * x + y


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    package_models.torchscript(folder)
    package_models.layouts_torch(folder)
    return folder


def test_a_scripted_and_a_traced_module(tmp_path: Path) -> None:
    pack = packagers.create_torchscript_package
    scripted = torch.jit.script(Adds())
    package = check_packager(pack, tmp_path / "a", module=scripted, **ADDS)
    check_round_trip(package, tmp_path, "torch")
    check_wrong_answer(pack, tmp_path, module=scripted, **ADDS)
    traced = torch.jit.trace(Adds(), (torch.ones(2, 2), torch.ones(2, 2)))
    untested = {name: value for name, value in ADDS.items() if not name.startswith("test_")}
    check_here(
        neuropod_packagers.create_torchscript_neuropod(
            neuropod_path=tmp_path / "b", module=traced, **untested
        ),
        ADDS,
    )
    with pytest.raises(ValueError, match=r"module is of type Adds; expected what torch\.jit\.script"):
        pack(package_path=tmp_path / "c", module=Adds(), **ADDS)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "file, inputs, outputs",
    [
        ("tensors", {"x": (X, "n", "m"), "y": (X, "n", "m")}, {"out": (2 * X.T, "m", "n")}),
        (
            "either",
            {"x": (X[0], "n"), "s": (np.array(["a", ""]), "k")},
            {"y": (2 * X[0], "n"), "t": (np.array(["a!", "!"]), "k")},
        ),
        (
            "fields",
            {"x": (X[0], "n"), "y": (X[1], "n")},
            {
                "sum": (X[0] + X[1], "n"),
                "difference": (X[0] - X[1], "n"),
                "said": (np.array(["a", "b"]), None),
            },
        ),
        (
            "several",
            {"x": (X[0], "n")},
            {"more": (X[0] + 1, "n"), "out": (2 * X[0], "n"), "said": (np.array(["a", "b"]), None)},
        ),
        (
            "words",
            {"x": (np.array(["a", "b\u00fc"]), "n"), "y": (np.array(["", "c"]), "n")},
            {"out": (np.array(["a ", "b\u00fc c"]), "n")},
        ),
    ],
)
def test_what_torchscript_is_called_with(
    file: str, inputs: dict[str, Any], outputs: dict[str, Any], models: Path, tmp_path: Path
) -> None:
    def specs(tensors: dict[str, Any]) -> list[dict[str, Any]]:
        kinds = {"U": "string", "f": "float32"}
        return [
            {"name": name, "dtype": kinds[array.dtype.kind], "shape": shape}
            for name, (array, *shape) in tensors.items()
        ]

    package = packagers.create_torchscript_package(
        package_path=tmp_path / "package.zip",
        model_name=file,
        module_path=models / f"{file}.pt",
        input_spec=specs(inputs),
        output_spec=specs(outputs),
    )
    with opexec.load(package.path, isolation="none") as model:
        answer = model.infer({name: array for name, (array, *_) in inputs.items()})
    for name, (expected, *_) in outputs.items():
        np.testing.assert_array_equal(answer[name], expected)


def test_an_output_that_comes_twice(models: Path, tmp_path: Path) -> None:
    given = {name: value for name, value in ADDS.items() if name != "test_expected_out"}
    given.update(
        input_spec=[spec("x", "n", 2)],
        test_input_data={"x": X},
        output_spec=[spec("out", "n", 2), {"name": "said", "dtype": "string", "shape": [None]}],
    )
    with pytest.raises(RuntimeError, match="the output 'out' in two dicts"):  # as Neuropod has it
        neuropod_packagers.create_torchscript_neuropod(
            neuropod_path=tmp_path / "twice", module_path=models / "twice.pt", **given
        )
    assert not (tmp_path / "twice").exists()


def test_layouts(models: Path) -> None:
    for layout in torchscript_layouts(models):
        with load_neuropod(layout.path, visible_gpu=None, isolation="none") as model:
            layout.check(model)


def test_a_module(tmp_path: Path) -> None:
    package = check_packager(packagers.create_torch_package, tmp_path / "a", module=Adds(), **ADDS)
    with opexec.load(package.path, isolation="none") as model:  # n may vary
        np.testing.assert_array_equal(model.infer({"x": X[:2], "y": X[:2]})["out"], 3 * X[:2])
    given = {name: value for name, value in ADDS.items() if not name.startswith("test_")}
    with pytest.raises(ValueError, match="module is given without test_input_data"):
        packagers.create_torch_package(package_path=tmp_path / "b", module=Adds(), **given)


def test_an_exported_program(tmp_path: Path) -> None:
    n = torch.export.Dim("n")
    exported = torch.export.export(
        Adds(), (torch.ones(3, 2), torch.ones(3, 2)), dynamic_shapes={"x": {0: n}, "y": {0: n}}
    )
    pack = packagers.create_torch_package
    package = check_packager(pack, tmp_path / "a", exported=exported, **ADDS)
    check_same_model(pack, package, "model.pt2", **ADDS)
    check_wrong_answer(pack, tmp_path, exported=exported, **ADDS)


def test_code_with_weights(tmp_path: Path) -> None:
    code = tmp_path / "code/net"
    code.mkdir(parents=True)
    (code / "main.py").write_text(
        "import torch\n\nclass Adds(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.factor = torch.nn.Parameter(torch.zeros(()))\n\n    def forward(self, x, y):\n"
        "        return {'out': self.factor * x + y}\n\n\ndef make(data_path):\n    return Adds()\n"
    )
    torch.save(Adds().state_dict(), tmp_path / "weights.pt")
    check_packager(
        packagers.create_torch_package,
        tmp_path / "a",
        code_path_spec=[{"python_root": tmp_path / "code", "dirs_to_package": ["net"]}],
        entrypoint_package="net.main",
        entrypoint="make",
        state_dict=tmp_path / "weights.pt",
        **ADDS,
    )


def test_pytorch_as_neuropod_has_it(tmp_path: Path) -> None:
    code = tmp_path / "code/net"
    code.mkdir(parents=True)
    (code / "main.py").write_text(
        "import torch\n\nclass Adds(torch.nn.Module):\n    def forward(self, x, y):\n"
        "        return {'out': (2 * torch.from_numpy(x) + torch.from_numpy(y)).numpy()}\n\n\n"
        "def make(data_path):\n    return Adds()\n"
    )
    given: dict[str, Any] = {
        "code_path_spec": [{"python_root": tmp_path / "code", "dirs_to_package": ["net"]}],
        "entrypoint_package": "net.main",
        "entrypoint": "make",
        **ADDS,
    }
    check_packager(packagers.create_pytorch_package, tmp_path / "a", **given)
    check_wrong_answer(packagers.create_pytorch_package, tmp_path, **given)
