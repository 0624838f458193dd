"""Models that ship inside packages on PyPI, fetched once into opexec's cache; the demo's is a text recogniser."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from opexec import BuildError
from opexec.environments import build_progress, installer
from opexec.files import caches

REQUIREMENTS = Path(__file__).with_name("model-requirements.txt")
INSIDE = Path("rapidocr_onnxruntime", "models", "ch_PP-OCRv3_rec_infer.onnx")


def fetch() -> Path:
    """The path of the demo's model. Raises BuildError."""
    return fetched(REQUIREMENTS) / INSIDE


def fetched(requirements: Path) -> Path:
    """A folder with the packages of that file, which gives their hashes; without the packages that they ask for.

    Raises:
        BuildError: they cannot be had.
    """
    folder = caches.folder("demo")
    place = folder / caches.digest(requirements.read_text(encoding="utf-8"))
    with (
        build_progress.reporting("models", None) as report,
        caches.locked(folder / "lock", lambda holder: report(f"waiting for {holder}, which fetches it")),
    ):
        if not place.exists():
            report(f"fetching the packages in {requirements.name}")
            unfinished = Path(tempfile.mkdtemp(dir=folder))
            try:
                _install(requirements, unfinished, build_progress.UvLog(report))
                unfinished.rename(place)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
            report("ready")
    return place


def _install(requirements: Path, target: Path, on_line: build_progress.UvLog) -> None:
    settings = installer.settings()
    command = ["pip", "install", "--no-deps", "--require-hashes", "--requirements", str(requirements)]
    try:
        installer.run(
            [*command, *settings.pip_options, "--python", sys.executable, "--target", str(target)],
            settings.variables,
            on_line=on_line,
        )
    except installer.UvFailed as error:
        raise BuildError(
            f"the packages in {requirements.name} cannot be installed. uv says:\n{error}"
        ) from None
