"""Where /dev/shm is too small, full, read-only or not there at all, everything works just as well: never SIGBUS, never a lost call."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import posix_ipc
import pytest

import opexec
from tests.absent import absent
from tests.loaded import source

REPOSITORY = str(Path(__file__).parents[2])

# Runs where /dev/shm is what a test has made of it. Prints what lies where, and that it works.
CALLER = """
import sys, numpy as np, opexec

def kinds():
    with open("/proc/self/maps") as maps:
        lines = [line for line in maps if "opexec" in line]
    return {"memfd" if "memfd:opexec" in line else "posix" for line in lines}

with opexec.load(sys.argv[1]) as model:
    held = []
    for mib in (0.1, 3, 0.1, 20):
        x = np.arange(int(mib * 131072.0))
        held.append(model.infer({"x": x})["x"])
        assert (held[-1] == x).all()
    x = model.empty("x", (1 << 20,), np.uint8)
    x[...] = 7
    assert (model.infer({"x": x[100:200]})["x"] == 7).all()
    model.restart()
    assert (model.infer({"x": x})["x"] == 7).all()
    assert [len(array) for array in held] == [13107, 393216, 13107, 2621440]
    print(*sorted(kinds()))
"""

MADE = {
    "tiny": "mount -t tmpfs -o size=64k tmpfs /dev/shm",
    "1 MiB": "mount -t tmpfs -o size=1m tmpfs /dev/shm",
    "small": "mount -t tmpfs -o size=3m tmpfs /dev/shm",
    "full": "mount -t tmpfs -o size=64m tmpfs /dev/shm && head -c 63m /dev/zero > /dev/shm/other",
    "read-only": "mount -t tmpfs -o ro tmpfs /dev/shm",
    "absent": (
        "mkdir dev && mount -t tmpfs tmpfs dev && ln -s /proc/self/fd dev/fd && "
        "for one in null zero full random urandom; do touch dev/$one && mount --bind /dev/$one dev/$one || exit 99; done && "
        "mount --rbind dev /dev && ! test -e /dev/shm"
    ),
}


@pytest.mark.parametrize("how", MADE)
def test_a_dev_shm_that_is(how: str, tmp_path: Path) -> None:
    """In a mount namespace of its own: nobody else sees these mounts, and they go with the process."""
    unshare = shutil.which("unshare")
    if unshare is None:
        absent("the program unshare (util-linux)")
    namespace = [unshare, "--mount", "--propagation", "private"] + (
        [] if os.geteuid() == 0 else ["--map-root-user"]
    )
    if subprocess.run(
        [*namespace, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode:
        absent("mount namespaces, which the kernel or a container refuses here")
    done = subprocess.run(
        [
            *namespace,
            "sh",
            "-c",
            f'{MADE[how]} || exit 99; PYTHONPATH="$3" exec "$0" -c "$1" "$2"',
            sys.executable,
            CALLER,
            source("echo"),
            REPOSITORY,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 99, f"/dev/shm could not be made {how}: {done.stderr}"
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("memfd posix\n" if how in ("1 MiB", "small", "full") else "memfd\n")


@pytest.mark.parametrize(
    "refusal",
    [
        posix_ipc.PermissionsError("not for you"),
        posix_ipc.ExistentialError("no such thing"),
        OSError(errno.ENOSPC, "full"),
    ],
    ids=repr,
)
def test_a_dev_shm_that_refuses(refusal: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise refusal

    monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
    with opexec.load(source("addresses")) as model, opexec.load(source("double")) as doubling:
        assert model.infer({"x": np.ones(10), "big": np.ones(1 << 20)})["big"][1] == 1
        y = doubling.infer({"x": np.ones(1 << 20)})["y"]
        assert (y == 2).all()
        assert "memfd:opexec" in mapping_of(y) and "memfd:opexec" in mapping_of(model.empty("x", (3,), "f4"))


def mapping_of(array: np.ndarray) -> str:
    """The line of this process's memory map in which an array lies."""
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(text, 16) for text in line.split()[0].split("-"))
            if start <= address < end:
                return line
    raise AssertionError("it lies nowhere")


def test_a_segment_from_a_memfd_cannot_be_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker could else do to its caller: cut off the memory that the caller is about to read."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise posix_ipc.PermissionsError

    monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
    with opexec.load(source("truncating")) as model:
        x = np.arange(100_000.0)
        for _ in range(3):
            results = model.infer({"x": x})
            assert results["refused"] > 0 and results["cut"] == 0
            np.testing.assert_array_equal(results["x"], x)


def test_nothing_lies_in_dev_shm_not_even_while_a_model_lives() -> None:
    before = set(os.listdir("/dev/shm"))
    with opexec.load(source("echo")) as model:
        model.infer({"x": np.ones(1 << 20)})
        mine = [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("opexec-")]
        # Another process's may show up for as long as it takes to unlink it.
        assert not [name for name in mine if os.path.exists(f"/dev/shm/{name}") and in_my_maps(name)]


def in_my_maps(name: str) -> bool:
    with open("/proc/self/maps") as maps:
        return any(f"/dev/shm/{name}\n" in line for line in maps)
