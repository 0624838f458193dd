"""Packs, verifies and runs a package larger than 2 and 4 GiB, and measures what that takes: ``python tools/large_package.py [GIB] [FOLDER]``.

The package is a zip (zip64 from 4 GiB on) with one file of so many GiB, 4.5 by default, which its model maps into memory and reads at both
ends and in between. FOLDER, a temporary one by default, needs three times as much free; everything is removed in the end.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

import opexec
from opexec import packagers
from opexec.package import read

GIB = 1 << 30
BLOCK = 1 << 24  # numbers in a piece that is written at once

CODE = """
    import os
    import numpy as np

    def make(data_path):
        weights = np.memmap(os.path.join(data_path, "weights.bin"), np.float32, "r")
        return lambda at: {"weight": weights[at], "count": np.array(weights.size)}
    """


def main(gib: float, folder: Path) -> None:
    count = int(gib * GIB) // 4
    free = shutil.disk_usage(folder).free
    if free < 3.2 * gib * GIB:
        sys.exit(f"{folder} has {free / GIB:.1f} GiB free; {3.2 * gib:.1f} are needed: give another folder")
    os.environ["OPEXEC_CACHE"] = str(folder / "cache")
    code = folder / "code/net"
    code.mkdir(parents=True)
    (code / "main.py").write_text(textwrap.dedent(CODE).lstrip())
    with step("write the weights"):
        write(folder / "weights.bin", count)
    at = np.array([0, 1, count // 2, count - 2, count - 1])
    expected = {"weight": (at % BLOCK).astype(np.float32), "count": np.array(count)}
    with step("pack, and try it on its test data"):
        package = packagers.create_python_package(
            package_path=folder / "large.zip",
            model_name="large",
            input_spec=[{"name": "at", "dtype": "int64", "shape": ["n"]}],
            output_spec=[
                {"name": "weight", "dtype": "float32", "shape": ["n"]},
                {"name": "count", "dtype": "int64", "shape": []},
            ],
            data_paths=[{"path": folder / "weights.bin", "packaged_name": "weights.bin"}],
            code_path_spec=[{"python_root": folder / "code", "dirs_to_package": ["net"]}],
            entrypoint_package="net.main",
            entrypoint="make",
            test_input_data={"at": at},
            test_expected_out=expected,
        )
    with open(folder / "weights.bin", "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else None
    os.unlink(folder / "weights.bin")
    print(
        f"the zip has {package.path.stat().st_size / GIB:.2f} GiB, its largest file {max(package.files.values()) / GIB:.2f} GiB"
    )
    with step("read what it says of itself"):
        package = read(package.path)
    with step("verify every file"):
        package.verify()
    for which in ("load, the first time (unpacks it)", "load, the second time"):
        with step(which):
            model = opexec.load(package.path)
        with model:
            answer = model.infer({"at": at})
            np.testing.assert_array_equal(answer["weight"], expected["weight"])
            assert answer["count"] == count
            worker = psutil.Process(model.workers[0].pid).memory_info().rss
            del answer
    if digest is not None:
        with open(package.data_folder() / "weights.bin", "rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"memory: {own / 2**20:.0f} MiB at most in this process, {worker / 2**20:.0f} MiB in the worker after a call"
    )
    disk = sum(file.stat().st_blocks * 512 for file in (folder / "cache").rglob("*") if file.is_file())
    print(f"disk: {disk / GIB:.2f} GiB in the cache")


def write(path: Path, count: int) -> None:
    """Numbers that repeat every `BLOCK`."""
    block = np.arange(BLOCK, dtype=np.float32)
    with open(path, "wb") as file:
        for begin in range(0, count, BLOCK):
            file.write(block[: count - begin].data)


@contextmanager
def step(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 4.5
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as scratch:
        main(size, Path(scratch))
