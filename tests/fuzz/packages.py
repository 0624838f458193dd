"""Fuzzing of the reader of packages, led by coverage: ``make fuzz ARGS="SECONDS FOLDER"``, for a minute by default. Needs atheris.

It starts from tests/data/package_corpus, and the zips that the tests of tests/opexec/packages start from. Whatever bytes a package is made of,
it is read, or refused with a PackageError that leaves nothing on disk. Anything else ends it, with the input in FOLDER (a new one by
default), whose name is told: to be put into tests/data/package_corpus as ``bad_WHAT.zip`` or ``good_WHAT.zip``, where the tests read it
from then on.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CLONE))

import atheris  # noqa: E402

with atheris.instrument_imports(include=["opexec.package", "opexec.packages", "opexec.spec", "zipfile"]):
    import zipfile  # noqa: F401

    from opexec.errors import PackageError
    from opexec.package import is_package, read
    from opexec.packages.config import parse_config
    from opexec.packages.platform_config import parse_platform_config

from tests.opexec.packages.test_fuzz import SEEDS  # noqa: E402

CORPUS = CLONE / "tests" / "data" / "package_corpus"


class Target:
    """Reads one input as a zip, and as a ``config.json``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "package.zip"
        self.cache = folder / "cache"
        os.environ["OPEXEC_CACHE"] = str(self.cache)

    def __call__(self, content: bytes) -> None:
        if content[:1] == b"{":
            self._read_config(content)
        else:
            self._read_zip(content)

    def _read_zip(self, content: bytes) -> None:
        self.path.write_bytes(content)
        is_package(self.path)
        try:
            package = read(self.path)
            package.hash()
            unpacked = package.folder()
        except PackageError as error:
            if error.package != str(self.path):
                raise RuntimeError(f"the error names {error.package!r}") from error
            self._check_nothing_is_left()
            return
        found = {
            file.relative_to(unpacked).as_posix(): file.stat().st_size
            for file in unpacked.rglob("*")
            if file.is_file()
        }
        if found != package.files:
            raise RuntimeError(f"unpacked {found}; expected {dict(package.files)}")
        self._clean()

    def _read_config(self, content: bytes) -> None:
        try:
            config = parse_config(content, "p")
            parse_platform_config(content, config, "p", ())
        except PackageError:
            return
        if config.checked("p") != config:
            raise RuntimeError(f"{config} comes back as {config.checked('p')}")

    def _check_nothing_is_left(self) -> None:
        packages = self.cache / "packages"
        left = [entry for entry in os.listdir(packages) if entry != "hashes"] if packages.exists() else []
        if left:
            raise RuntimeError(f"left {left}")

    def _clean(self) -> None:
        import shutil

        shutil.rmtree(self.cache, ignore_errors=True)


def main(seconds: int, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        seeds = Path(scratch, "seeds")
        seeds.mkdir()
        for number, content in enumerate(SEEDS):
            (seeds / f"seed{number}").write_bytes(content)
        found = Path(scratch, "found")
        found.mkdir()
        options = [
            f"-max_total_time={seconds}",
            f"-artifact_prefix={folder}/",
            "-max_len=65536",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS), str(seeds)], Target(Path(scratch)))
        print(f"what fails goes to {folder}", flush=True)
        atheris.Fuzz()


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    main(wanted, Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="opexec-fuzz-")))
