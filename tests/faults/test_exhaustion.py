"""Where the machine has no more to give (descriptors, disk, shared memory), or its clock jumps: a clear error at most, and nothing is left behind."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loaded import source

REPOSITORY = Path(__file__).parents[2]

CALLER = """
import contextlib, gc, os, resource, sys
import numpy as np, psutil, opexec
source = sys.argv[1]
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

def descriptors():
    gc.collect()
    with os.scandir("/proc/self/fd") as entries:
        return {int(entry.name): os.readlink(entry.path) for entry in entries if "/proc/" not in os.readlink(entry.path)}

@contextlib.contextmanager
def room_for(count):
    "No more than so many further descriptors."
    taken = set(descriptors())
    free = [number for number in range(len(taken) + count + 1) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

def assert_nothing_left(before):
    assert descriptors() == before, (before, descriptors())
    assert psutil.Process().children() == []
"""

LOADING = """
opexec.load(source).close()  # what stays: the threads that start and watch workers, and their descriptors
before = descriptors()
refused = set()
for count in range(100):
    with room_for(count):
        try:
            model = opexec.load(source)
        except (OSError, opexec.OpexecError) as error:
            refused.add(type(error).__name__)
            message = str(error)
            del error
        else:
            break
    assert_nothing_left(before)
else:
    raise AssertionError(message)
print(count, sorted(refused), file=sys.stderr)
assert count > 5 and refused <= {"OSError", "LoadError", "BuildError", "OutOfSharedMemory", "WorkerDied"}, refused
with model:
    assert (model.infer({"x": np.ones(5)})["y"] == 2).all()
model.close()
del model
assert_nothing_left(before)
"""

CALLING = """
with opexec.load(source) as model:
    for count in range(4):
        for size in (1 << 10, 1 << 18, 1 << 21):
            before = descriptors()
            with room_for(count):
                try:
                    model.infer({"x": np.ones(size + count)})
                except (OSError, opexec.OpexecError) as error:
                    print(count, size, repr(error), file=sys.stderr)
                    assert isinstance(error, (OSError, opexec.OutOfSharedMemory, opexec.WorkerDied)), repr(error)
    assert (model.infer({"x": np.ones(1 << 21)})["y"] == 2).all()
"""


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_caller_without_descriptors_is_told_and_loses_none() -> None:
    """One more with each attempt, until they are enough: every step of a load is the one that fails once."""
    run(CALLER + LOADING, source("double"))


def test_a_call_without_descriptors_fails_by_itself() -> None:
    run(CALLER + CALLING, source("double"))


# ---- disk

FULL = """
import sys
import numpy as np, opexec
from opexec.files import caches

class OnAFullDisk:
    def __init__(self, *arguments, **settings):
        self.file = open(*arguments, **settings)
    def __enter__(self):
        return self
    def __exit__(self, *exception):
        self.file.close()
    def write(self, text):
        self.file.write(text[:1])
        raise OSError(28, "No space left on device", str(self.file.name))

caches.open = OnAFullDisk
try:
    opexec.load(sys.argv[1])
except opexec.BuildError as error:
    assert "No space left on device" in str(error) and "OPEXEC_CACHE" in str(error), error
else:
    raise AssertionError("there was no room")
left = [path for path in caches.root().rglob("*") if path.is_file()]
assert left == [], left
del caches.open
with opexec.load(sys.argv[1]) as model:
    assert model.infer({"x": np.ones(3)})["y"].sum() == 6
"""

NO_ROOM_FOR_A_FILE = """
import resource, sys
import opexec
from opexec.files import caches
from opexec.environments.interpreters import probe
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
try:
    probe(sys.executable)
except opexec.BuildError as error:
    assert "File too large" in str(error) and "OPEXEC_CACHE" in str(error), error
else:
    raise AssertionError("it was written")
assert [path for path in caches.root().rglob("*") if path.is_file()] == []
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert probe(sys.executable).version
with opexec.load(sys.argv[1]) as model:
    pass
"""


@pytest.mark.parametrize("code", [FULL, NO_ROOM_FOR_A_FILE], ids=["no space", "no large file"])
def test_a_full_disk_under_the_cache_is_named_and_leaves_no_part_of_a_file(code: str, tmp_path: Path) -> None:
    run(code, source("double"), OPEXEC_CACHE=str(tmp_path / "cache"))


def test_a_worker_starts_though_its_bytecode_cannot_be_kept(tmp_path: Path) -> None:
    """The folder is one that turns every file away, even root's: one of /proc."""
    code = """
import sys
from pathlib import Path
import numpy as np, opexec
from opexec.files import caches
folder = caches.folder
caches.folder = lambda *parts: Path("/proc/self/fdinfo") if parts == ("bytecode",) else folder(*parts)
with opexec.load(sys.argv[1]) as model:
    assert (model.infer({"x": np.ones(3)})["y"] == 2).all()
"""
    run(code, source("double"))


# ---- the clock

JUMPING = """
import itertools, time, datetime
jumps = itertools.cycle([0.0, 4e9, 1e9, 3.9e9])
time.time = lambda: next(jumps)
time.time_ns = lambda: int(next(jumps) * 1e9)
"""

CLOCK = (
    JUMPING
    + """
import sys
import numpy as np, opexec
with opexec.load(sys.argv[1], timeout=60) as model:
    for _ in range(20):
        model.infer({"x": np.ones(3)}, timeout=60)
    assert model.submit({"x": np.ones(3)}).result(60)["x"].sum() == 3
    try:
        model.infer({"x": -np.ones(3)}, timeout=0.2)
    except opexec.CallTimeout:
        pass
    else:
        raise AssertionError("it waited for ever")
"""
)


def test_no_wait_depends_on_the_time_of_day(tmp_path: Path) -> None:
    """The clock jumps by a century with each look, in the caller and in the worker."""
    (tmp_path / "model.py").write_text(
        JUMPING
        + "\ndef factory():\n    def call(x):\n        while x[0] < 0:\n            pass\n        return {'x': x}\n    return call\n"
    )
    run(CLOCK, f"{tmp_path / 'model.py'}:factory")


#: What may ask for the time of day: what is compared with the times of files, and what people read.
WALL_CLOCK = (
    *(
        "opexec/bench/",
        "opexec/cli/",
        "opexec/comparison/",
        "opexec/environments/",
        "opexec/metrics/",
        "opexec/packages/",
        "opexec/supervision/",
    ),
    *("opexec/files/caches.py", "opexec/sizes.py"),
)


def asks_for_the_time_of_day(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in {("time", "time"), ("time", "time_ns"), ("time", "localtime")}:
                return True
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today", "CLOCK_REALTIME"):
            return True
    return False


def test_only_what_reads_the_times_of_files_knows_the_time_of_day() -> None:
    found = {
        str(path.relative_to(REPOSITORY))
        for room in ("ipc", "workers", "opexec")
        for path in (REPOSITORY / room).rglob("*.py")
        if asks_for_the_time_of_day(path)
    }
    assert "opexec/files/caches.py" in found
    assert sorted(path for path in found if not path.startswith(WALL_CLOCK)) == []
