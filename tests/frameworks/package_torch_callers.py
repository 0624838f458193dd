"""Packagers that are given objects of torch. Run by test_package_callers.py, where torch is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opexec
from opexec import packagers
from opexec.neuropod import packagers as neuropod_packagers
from tests.frameworks.package_checks import check_packager

pytestmark = pytest.mark.timeout(300)  # each starts a dozen workers
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


def test_a_scripted_and_a_traced_module(tmp_path: Path) -> None:
    check_packager(
        packagers.create_torchscript_package, tmp_path / "a", "torch", module=torch.jit.script(Adds()), **ADDS
    )
    traced = torch.jit.trace(Adds(), (torch.ones(2, 2), torch.ones(2, 2)))
    package = neuropod_packagers.create_torchscript_neuropod(
        neuropod_path=tmp_path / "b", module=traced, **ADDS
    )
    with opexec.load(package.path) as model:
        np.testing.assert_array_equal(model.infer({"x": X, "y": X})["out"], 3 * X)
    with pytest.raises(ValueError, match=r"module is of type Adds; expected what torch\.jit\.script"):
        packagers.create_torchscript_package(package_path=tmp_path / "c", module=Adds(), **ADDS)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_module(tmp_path: Path) -> None:
    package = check_packager(packagers.create_torch_package, tmp_path / "a", "torch", module=Adds(), **ADDS)
    with opexec.load(package.path) as model:  # n may vary
        np.testing.assert_array_equal(model.infer({"x": X[:2], "y": X[:2]})["out"], 3 * X[:2])
    given = {name: value for name, value in ADDS.items() if not name.startswith("test_")}
    with pytest.raises(ValueError, match="module is given without test_input_data"):
        packagers.create_torch_package(package_path=tmp_path / "b", module=Adds(), **given)


def test_an_exported_program(tmp_path: Path) -> None:
    n = torch.export.Dim("n")
    exported = torch.export.export(
        Adds(), (torch.ones(3, 2), torch.ones(3, 2)), dynamic_shapes={"x": {0: n}, "y": {0: n}}
    )
    check_packager(packagers.create_torch_package, tmp_path / "a", "torch", exported=exported, **ADDS)


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
        "torch",
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
    check_packager(
        packagers.create_pytorch_package,
        tmp_path / "a",
        "python",
        code_path_spec=[{"python_root": tmp_path / "code", "dirs_to_package": ["net"]}],
        entrypoint_package="net.main",
        entrypoint="make",
        **ADDS,
    )
