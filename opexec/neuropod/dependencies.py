"""Installing what packages need ahead of time, as ``neuropod.backends.python.utils`` has it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .loader import load_neuropod
from .packagers import create_python_neuropod

_NOTHING = "def make(data_path):\n    return lambda: {}\n"


def preinstall_deps(backend_version: str, requirements: str) -> None:
    """Build the environment in which a package of Python `backend_version` (``"3.8"``) with just these `requirements` runs.

    That package is then loaded without installing anything. Raises what `create_python_neuropod` and `load_neuropod` raise.
    """
    with tempfile.TemporaryDirectory(prefix="opexec-preinstall-") as folder:
        code = Path(folder, "code")
        code.mkdir()
        (code / "nothing.py").write_text(_NOTHING)
        path = Path(folder, "package")
        create_python_neuropod(
            neuropod_path=path,
            model_name="preinstall",
            code_path_spec=[{"python_root": code, "dirs_to_package": ["."]}],
            entrypoint_package="nothing",
            entrypoint="make",
            input_spec=[],
            output_spec=[],
            platform_version_semver=backend_version,
            requirements=requirements,
        )
        load_neuropod(path, visible_gpu=None).close()
