"""The model: a text recogniser that ships inside a package on PyPI, fetched once into opexec's cache."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from opexec import BuildError, caches
from opexec.environments import build_progress, installer

REQUIREMENTS = Path(__file__).with_name("model-requirements.txt")
INSIDE = Path("rapidocr_onnxruntime", "models", "ch_PP-OCRv3_rec_infer.onnx")


def fetch() -> Path:
    """The path of the model's file. Its package is installed into a folder of its own, without the packages it asks for.

    Raises:
        BuildError: the package cannot be had.
    """
    folder = caches.folder("demo")
    place = folder / caches.digest(REQUIREMENTS.read_text(encoding="utf-8"))
    with (
        build_progress.reporting("model", None) as report,
        caches.locked(folder / "lock", lambda holder: report(f"waiting for {holder}, which fetches it")),
    ):
        if not place.exists():
            report(f"fetching {INSIDE.name}")
            unfinished = Path(tempfile.mkdtemp(dir=folder))
            try:
                _install(unfinished, build_progress.UvLog(report))
                unfinished.rename(place)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
            report("ready")
    return place / INSIDE


def _install(target: Path, on_line: build_progress.UvLog) -> None:
    settings = installer.settings()
    command = ["pip", "install", "--no-deps", "--require-hashes", "--requirements", str(REQUIREMENTS)]
    try:
        installer.run(
            [*command, *settings.pip_options, "--python", sys.executable, "--target", str(target)],
            settings.variables,
            on_line=on_line,
        )
    except installer.UvFailed as error:
        raise BuildError(
            f"the package with the demo's model cannot be installed. uv says:\n{error}"
        ) from None
