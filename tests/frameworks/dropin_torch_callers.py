"""torch's face where torch is installed: tensors in, tensors out. test_dropin.py runs this, with a worker in the same interpreter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opexec.dropin import torch as face


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import torch

    path = tmp_path_factory.mktemp("models") / "model.pt"
    source = (
        "def forward(self, x, factor: float, words: List[int]):\n"
        "    return x * factor, {'sum': x.sum(0), 'words': torch.tensor(words)}\n"
    )
    script = torch.jit.ScriptModule()
    script.define(source)
    script.save(str(path))
    with face.jit.load(path) as loaded:
        yield loaded


def test_tensors_come_out_where_tensors_went_in(module: Any) -> None:
    import torch

    x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    y, rest = module(x, 2.0, [3, 4])
    assert isinstance(y, torch.Tensor) and torch.equal(y, 2 * x)
    assert isinstance(rest["sum"], torch.Tensor) and torch.equal(rest["sum"], x.sum(0))
    assert rest["words"].tolist() == [3, 4]
    held = [module(x + round, 1.0, [round])[0] for round in range(20)]
    for round, one in enumerate(held):
        assert torch.equal(one, x + round)


def test_arrays_come_out_where_arrays_went_in(module: Any) -> None:
    x = np.ones((2, 3), np.float32)
    y, rest = module.forward(x, 2.0, [1])
    assert type(y) is np.ndarray and type(rest["sum"]) is np.ndarray
    np.testing.assert_array_equal(y, 2 * x)


def test_it_stays_on_the_cpu_and_in_inference(module: Any) -> None:
    import torch

    assert (
        module.eval().to("cpu").to(torch.device("cpu")).cpu().train(False) is module and not module.training
    )
    with pytest.raises(ValueError, match="inference"):
        module.train()
    for other in ("cuda:0", torch.float16):
        with pytest.raises(ValueError, match="map_location"):
            module.to(other)


def test_everything_else_is_torchs_own() -> None:
    import torch

    assert face.no_grad is torch.no_grad and face.jit.script is torch.jit.script
    assert face.__version__ == torch.__version__ and sys.modules["torch"] is torch


def test_an_open_file_is_taken(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "double.pt"
    torch.jit.trace(lambda x: x * 2, torch.ones(2)).save(str(path))
    with open(path, "rb") as file, face.jit.load(file) as model:
        assert model(torch.ones(2)).tolist() == [2, 2]
