"""Packages in every form of package_layouts.py, in workers with the frameworks of their time; the frameworks of today run them in
package_tensorflow_callers.py and package_torch_callers.py. Those of Python are in tests/opexec/packages/test_layouts.py, custom ops in
test_package_ops.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opexec.neuropod.loader import load_neuropod
from tests.frameworks.environments import built
from tests.frameworks.package_layouts import Layout, tensorflow_layouts, torchscript_layouts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "environment, kind, layouts",
    [
        ("tensorflow-1.15", "layouts_tensorflow", tensorflow_layouts),
        ("torch-1.5", "layouts_torch", torchscript_layouts),
    ],
)
def test_layouts(
    environment: str, kind: str, layouts: Callable[[Path], Iterator[Layout]], tmp_path: Path
) -> None:
    python = built(environment)
    writer = Path(__file__).with_name("package_models.py")
    subprocess.run([python, "-W", "ignore", writer, kind, tmp_path], check=True, capture_output=True)
    for layout in layouts(tmp_path):
        with load_neuropod(layout.path, visible_gpu=None, env=python) as neuropod:
            layout.check(neuropod)
