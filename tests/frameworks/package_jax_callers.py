"""Packagers that are given objects of jax. Run by test_package_callers.py, where jax is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export

from opexec import packagers
from tests.frameworks.package_checks import (
    check_packager,
    check_round_trip,
    check_same_model,
    check_wrong_answer,
)

pytestmark = pytest.mark.timeout(300)  # each starts workers that import jax
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
    given = {**ADDS, "input_names": {"x": "input_0", "y": "input_1"}}
    package = check_packager(packagers.create_jax_package, tmp_path / "a", exported=exported, **given)
    check_wrong_answer(packagers.create_jax_package, tmp_path, exported=exported, **given)
    check_same_model(packagers.create_jax_package, package, "model.jaxexport", **given)
    check_round_trip(package, tmp_path, "jax")


def test_code(tmp_path: Path) -> None:
    code = tmp_path / "code/net"
    code.mkdir(parents=True)
    (code / "main.py").write_text(
        "import jax\n\n\ndef make(data_path):\n    return jax.jit(lambda x, y: {'out': 2 * x + y})\n"
    )
    check_packager(
        packagers.create_jax_package,
        tmp_path / "a",
        code_path_spec=[{"python_root": tmp_path / "code", "dirs_to_package": ["net"]}],
        entrypoint_package="net.main",
        entrypoint="make",
        **ADDS,
    )
