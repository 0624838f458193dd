"""Packages as programs written for Neuropod make them, of a model whose whole code is one file."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from opexec.neuropod import packagers

ADDER = """
    import sys
    import numpy as np

    assert sys.argv

    def add(x, y=None, fail=False):
        if fail:
            raise RuntimeError("as it was asked to")
        return {"out": x if y is None else x + y}

    def get_model(data_path):
        return add
    """
FIVE = np.arange(5, dtype=np.float32)


def spec(name: str, *shape: Any, dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape}


def packaged(folder: Path, code: str = ADDER, **changes: Any) -> Path:
    """A package of a model whose whole code is one file, beside that."""
    root, path = folder / "model_code", folder / "test_neuropod"
    root.mkdir(parents=True, exist_ok=True)
    (root / "adder.py").write_text(textwrap.dedent(code))
    arguments: dict[str, Any] = {
        "neuropod_path": str(path),
        "model_name": "addition_model",
        "data_paths": [],
        "code_path_spec": [{"python_root": str(root), "dirs_to_package": [""]}],
        "entrypoint_package": "adder",
        "entrypoint": "get_model",
        "input_spec": [spec("x", "batch_size"), spec("y", "batch_size"), spec("fail", dtype="bool")],
        "output_spec": [spec("out", "batch_size")],
    }
    packagers.create_python_neuropod(**{**arguments, **changes})
    return path
