"""Packagers that are given objects of jax. Run by test_package_callers.py, where jax is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export

from opexec import packagers
from tests.frameworks.package_checks import check_packager

pytestmark = pytest.mark.timeout(300)  # each starts a dozen workers
X = np.arange(4, dtype=np.float32)


def spec(name: str) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": ["n"]}


ADDS: dict[str, Any] = {
    "model_name": "adds",
    "input_spec": [spec("x"), spec("y")],
    "output_spec": [spec("out")],
    "test_input_data": {"x": X, "y": X},
    "test_expected_out": {"out": 3 * X},
}


def test_what_jax_exports(tmp_path: Path) -> None:
    (n,) = export.symbolic_shape("n")
    shape = jax.ShapeDtypeStruct((n,), np.float32)
    exported = export.export(jax.jit(lambda x, y: 2 * x + y))(shape, shape)
    check_packager(
        packagers.create_jax_package,
        tmp_path / "a",
        "jax",
        exported=exported,
        input_names={"x": "input_0", "y": "input_1"},
        **ADDS,
    )


def test_code(tmp_path: Path) -> None:
    code = tmp_path / "code/net"
    code.mkdir(parents=True)
    (code / "main.py").write_text(
        "import jax\n\n\ndef make(data_path):\n    return jax.jit(lambda x, y: {'out': 2 * x + y})\n"
    )
    check_packager(
        packagers.create_jax_package,
        tmp_path / "a",
        "jax",
        code_path_spec=[{"python_root": tmp_path / "code", "dirs_to_package": ["net"]}],
        entrypoint_package="net.main",
        entrypoint="make",
        **ADDS,
    )
